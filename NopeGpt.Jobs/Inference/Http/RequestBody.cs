using System.Globalization;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.AspNetCore.Http;
using NopeGpt.Jobs.Configuration;

namespace NopeGpt.Jobs.Inference.Http;

/// <summary>The JSON object of a request, field by field. Wrong values are collected, so that the answer names all of them at once.</summary>
internal sealed class RequestBody : IDisposable
{
    private const int MostBytes = 8 << 20;

    private readonly JsonDocument _document;
    private readonly Dictionary<string, JsonElement> _fields = [];
    private readonly HashSet<string> _known = [];
    private readonly List<(string Field, string Message)> _problems = [];

    private RequestBody(JsonDocument document)
    {
        _document = document;
        foreach (JsonProperty field in document.RootElement.EnumerateObject()) _fields[field.Name] = field.Value;
    }

    /// <exception cref="ApiException">It is not a JSON object in UTF-8.</exception>
    public static async Task<RequestBody> ReadAsync(HttpRequest request, CancellationToken cancel)
    {
        using MemoryStream bytes = new();
        byte[] buffer = new byte[1 << 16];
        // Before the first read, which would tell the client to go on sending.
        if (request.ContentLength > MostBytes) throw TooLarge();
        while (await request.Body.ReadAsync(buffer, cancel) is var count and > 0)
        {
            bytes.Write(buffer, 0, count);
            if (bytes.Length > MostBytes) throw TooLarge();
        }
        ReadOnlyMemory<byte> text = bytes.GetBuffer().AsMemory(0, (int)bytes.Length);
        if (!Utf8.IsValid(text.Span)) throw new ApiException(StatusCodes.Status400BadRequest, "the body is not UTF-8: send JSON in UTF-8");
        JsonDocument? document = null;
        try
        {
            document = JsonDocument.Parse(text.ToArray(), new JsonDocumentOptions { AllowDuplicateProperties = false });
            if (document.RootElement.ValueKind == JsonValueKind.Object) return new RequestBody(document);
        }
        catch (JsonException e) { throw new ApiException(StatusCodes.Status400BadRequest, $"the body is not JSON: {e.Message}"); }
        catch (InvalidOperationException)
        {
            document?.Dispose();
            throw new ApiException(StatusCodes.Status400BadRequest, "the name of a field is not valid Unicode");
        }
        document.Dispose();
        throw new ApiException(StatusCodes.Status400BadRequest, "the body must be a JSON object");
    }

    public void Dispose() => _document.Dispose();

    public void Add(string field, string message) => _problems.Add((field, message));

    /// <summary>The field's value, or null where it is absent or null.</summary>
    public JsonElement? Find(string name)
    {
        _known.Add(name);
        return _fields.TryGetValue(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;
    }

    public string? Text(string name)
    {
        if (Find(name) is not { } value) return null;
        if (AsText(value) is { } text) return text;
        Add(name, $"{name} must be a text");
        return null;
    }

    /// <summary>A text; null for anything else, also for escapes that are half a character.</summary>
    public static string? AsText(JsonElement value)
    {
        if (value.ValueKind != JsonValueKind.String) return null;
        try { return value.GetString(); }
        catch (InvalidOperationException) { return null; }
    }

    public double? Number(string name, double minimum, double maximum)
    {
        if (Find(name) is not { } value) return null;
        if (value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && number >= minimum && number <= maximum) return number;
        Add(name, string.Create(CultureInfo.InvariantCulture, $"{name} must be a number from {minimum} to {maximum}, not {Shown(value)}"));
        return null;
    }

    public int? Whole(string name, int minimum, int maximum)
    {
        if (Find(name) is not { } value) return null;
        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number) && number >= minimum && number <= maximum) return number;
        Add(name, string.Create(CultureInfo.InvariantCulture, $"{name} must be a whole number from {minimum} to {maximum}, not {Shown(value)}"));
        return null;
    }

    public ulong? Seed(string name)
    {
        if (Find(name) is not { } value) return null;
        if (value.ValueKind == JsonValueKind.Number && value.TryGetUInt64(out ulong number)) return number;
        Add(name, string.Create(CultureInfo.InvariantCulture, $"{name} must be a whole number from 0 to {ulong.MaxValue}, not {Shown(value)}"));
        return null;
    }

    public bool Flag(string name)
    {
        if (Find(name) is not { } value) return false;
        if (value.ValueKind is JsonValueKind.True or JsonValueKind.False) return value.GetBoolean();
        Add(name, $"{name} must be true or false, not {Shown(value)}");
        return false;
    }

    /// <summary>A field of OpenAI's interface that has no effect on the text.</summary>
    public void Ignore(params string[] names) => _known.UnionWith(names);

    /// <summary>A field of OpenAI's interface of which only one value is possible here.</summary>
    public void Only(string name, string onlyValue)
    {
        if (Find(name) is not { } value || value.GetRawText() == onlyValue) return;
        // 0.0 is 0 as well.
        if (value.ValueKind == JsonValueKind.Number && double.TryParse(onlyValue, CultureInfo.InvariantCulture, out double only) && value.GetDouble() == only) return;
        Add(name, $"{name} is not supported here: leave it out");
    }

    /// <exception cref="ApiException">Something is wrong; it names every field.</exception>
    public void Check()
    {
        foreach (string name in _fields.Keys.Where(n => !_known.Contains(n)))
        {
            string? nearest = Settings.Nearest(name, _known);
            Add(name, nearest is null ? $"there is no field {name}" : $"there is no field {name}: did you mean {nearest}?");
        }
        if (_problems.Count > 0)
            throw new ApiException(StatusCodes.Status400BadRequest, string.Join("\n", _problems.Select(p => p.Message)), _problems[0].Field, "invalid_value");
    }

    private static ApiException TooLarge() => new(StatusCodes.Status413PayloadTooLarge, $"the body is larger than {MostBytes >> 20} MiB");

    private static string Shown(JsonElement value)
    {
        string text = value.GetRawText();
        return text.Length <= 40 ? text : text[..40] + "…";
    }
}
