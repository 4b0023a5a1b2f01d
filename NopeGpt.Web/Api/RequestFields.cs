using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Web.Api;

/// <summary>The fields of a JSON object in a request's body, each of which may be left out. Reading one of the wrong type adds a problem.</summary>
internal sealed class RequestFields
{
    private const int LongestShown = 80;
    private readonly Dictionary<string, JsonElement> fields = new(StringComparer.Ordinal);
    private readonly List<Problem> problems = [];

    private RequestFields()
    {
    }

    /// <summary>What is wrong so far, as an answer; null for nothing.</summary>
    public IResult? Refusal => problems.Count > 0 ? ApiProblems.Bad(problems) : null;

    /// <summary>Reads the body, which may be empty where nothing must be in it. One of the two results is null.</summary>
    /// <param name="known">Names in snake_case; a request may write them in camelCase or kebab-case too.</param>
    public static async Task<(RequestFields? Fields, IResult? Refusal)> ReadAsync(HttpRequest request, bool mayBeEmpty, CancellationToken cancel, params string[] known)
    {
        RequestFields read = new();
        bool hasBody = request.ContentLength > 0 || request.Headers.TransferEncoding.Count > 0;
        if (!hasBody && mayBeEmpty) return (read, null);
        (JsonDocument? document, IResult? refusal) = await JsonBody.ReadAsync(request, cancel);
        if (document is null) return (null, refusal);
        using (document)
        {
            string names = string.Join(", ", known);
            if (document.RootElement.ValueKind != JsonValueKind.Object) return (null, ApiProblems.Bad("body", "", $"send a JSON object with {names}"));
            foreach (JsonProperty field in document.RootElement.EnumerateObject())
            {
                string name = Settings.SnakeCase(field.Name).Replace('-', '_');
                if (!known.Contains(name)) read.Wrong(field.Name, field.Value, Settings.Nearest(name, known) is { } near ? $"there is no such field; did you mean {near}?" : $"there is no such field; known are {names}");
                else if (!read.fields.TryAdd(name, field.Value.Clone())) read.Wrong(field.Name, field.Value, "is given twice");
            }
        }
        return (read, null);
    }

    /// <summary>Whether it is given, be it null.</summary>
    public bool Has(string name) => fields.ContainsKey(name);

    public string? Text(string name) => Read<string?>(name, "must be a text", json => json.ValueKind == JsonValueKind.String ? (true, json.GetString()) : (false, null));

    public bool? YesOrNo(string name) => Read<bool?>(name, "must be true or false", json => json.ValueKind is JsonValueKind.True or JsonValueKind.False ? (true, json.GetBoolean()) : (false, null));

    public long? Whole(string name, long minimum, long maximum) => Read<long?>(name, $"must be a whole number from {minimum} to {maximum}",
        json => json.ValueKind == JsonValueKind.Number && json.TryGetInt64(out long value) && value >= minimum && value <= maximum ? (true, value) : (false, null));

    public DateTimeOffset? Time(string name) => Read<DateTimeOffset?>(name, "must be a time such as 2026-11-24T08:00:00Z, or null for none",
        json => json.ValueKind == JsonValueKind.String && json.TryGetDateTimeOffset(out DateTimeOffset value) ? (true, value) : (false, null));

    public IReadOnlyList<string>? Texts(string name) => Read<IReadOnlyList<string>?>(name, "must be a list of texts",
        json => json.ValueKind == JsonValueKind.Array && json.EnumerateArray().All(e => e.ValueKind == JsonValueKind.String) ? (true, [.. json.EnumerateArray().Select(e => e.GetString()!)]) : (false, null));

    public JsonElement? Object(string name) => Read<JsonElement?>(name, "must be a JSON object", json => json.ValueKind == JsonValueKind.Object ? (true, json) : (false, null));

    /// <summary>Says that something must be given that is not.</summary>
    public void Require(string name, string rule)
    {
        if (!Has(name) && problems.All(p => p.Field != name)) problems.Add(new Problem(name, "", rule));
    }

    /// <summary>null in the request is as good as nothing.</summary>
    private T? Read<T>(string name, string rule, Func<JsonElement, (bool Fits, T? Value)> read)
    {
        if (!fields.TryGetValue(name, out JsonElement json) || json.ValueKind == JsonValueKind.Null) return default;
        (bool fits, T? value) = read(json);
        if (!fits) Wrong(name, json, rule);
        return value;
    }

    private void Wrong(string name, JsonElement json, string message)
    {
        string value = json.GetRawText();
        problems.Add(new Problem(name.Length <= LongestShown ? name : name[..(LongestShown - 3)] + "...", value.Length <= LongestShown ? value : value[..(LongestShown - 3)] + "...", message));
    }
}
