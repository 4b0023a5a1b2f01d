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
        JsonDocument? document = null;
        try
        {
            document = JsonDocument.Parse(body.GetBuffer().AsMemory(0, (int)body.Length), Strict);
            ReadTexts(document.RootElement);
            return (document, null);
        }
        catch (InvalidOperationException)
        {
            document?.Dispose();
            return (null, ApiProblems.Bad("body", "", "a name or text in it is not valid Unicode: send UTF-8 without halves of characters"));
        }
        catch (JsonException e)
        {
            return (null, ApiProblems.Bad("body", "", body.Length == 0 ? "it is empty: send a JSON object" : $"it is not JSON ({e.Message.Split(" LineNumber:")[0].TrimEnd('.')}; line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1})"));
        }
    }

    /// <summary>Reads every name and text once, since the parser looks at them only when they are asked for.</summary>
    /// <exception cref="InvalidOperationException">One of them is no Unicode.</exception>
    private static void ReadTexts(JsonElement element)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.String:
                _ = element.GetString();
                break;
            case JsonValueKind.Array:
                foreach (JsonElement one in element.EnumerateArray()) ReadTexts(one);
                break;
            case JsonValueKind.Object:
                foreach (JsonProperty field in element.EnumerateObject())
                {
                    _ = field.Name;
                    ReadTexts(field.Value);
                }
                break;
        }
    }

    private static IResult TooLarge() => ApiProblems.Status(StatusCodes.Status413PayloadTooLarge, $"The body is larger than {LargestBytes} bytes: send the configuration only.");
}
