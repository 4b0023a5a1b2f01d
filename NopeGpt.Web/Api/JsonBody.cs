using System.Text.Json;

namespace NopeGpt.Web.Api;

/// <summary>The JSON of a request, or why there is none.</summary>
internal static class JsonBody
{
    /// <summary>A run's configuration is a few kilobytes.</summary>
    public const int LargestBytes = 1 << 20;

    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false };

    /// <summary>Reads the whole body. One of the two results is null.</summary>
    public static async Task<(JsonDocument? Document, IResult? Refusal)> ReadAsync(HttpRequest request, CancellationToken cancel)
    {
        if (!request.HasJsonContentType())
            return (null, ApiProblems.Status(StatusCodes.Status415UnsupportedMediaType, $"The body must be JSON, and Content-Type say so: application/json, not '{request.ContentType}'."));
        if (request.ContentLength > LargestBytes) return (null, TooLarge());
        using MemoryStream body = new();
        byte[] buffer = new byte[1 << 14];
        for (int read; (read = await request.Body.ReadAsync(buffer, cancel)) > 0;)
        {
            body.Write(buffer, 0, read);
            if (body.Length > LargestBytes) return (null, TooLarge());
        }
        try
        {
            return (JsonDocument.Parse(body.GetBuffer().AsMemory(0, (int)body.Length), Strict), null);
        }
        catch (JsonException e)
        {
            return (null, ApiProblems.Bad("body", "", body.Length == 0 ? "it is empty: send a JSON object" : $"it is not JSON ({e.Message.Split(" LineNumber:")[0].TrimEnd('.')}; line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1})"));
        }
    }

    private static IResult TooLarge() => ApiProblems.Status(StatusCodes.Status413PayloadTooLarge, $"The body is larger than {LargestBytes} bytes: send the configuration only.");
}
