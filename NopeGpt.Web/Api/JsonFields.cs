using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Web.Api;

/// <summary>The fields of a JSON object by their names. What is wrong with one is added to the problems.</summary>
internal sealed class JsonFields
{
    private readonly Dictionary<string, JsonElement> _given = new(StringComparer.Ordinal);
    private readonly List<Problem> _problems;

    private JsonFields(List<Problem> problems) => _problems = problems;

    /// <param name="known">The names that there are; others are problems.</param>
    public static JsonFields Of(JsonElement body, List<Problem> problems, params string[] known)
    {
        JsonFields fields = new(problems);
        if (body.ValueKind != JsonValueKind.Object)
        {
            problems.Add(new Problem("", Shown(body), $"send a JSON object with {string.Join(", ", known)}"));
            return fields;
        }
        foreach (JsonProperty field in body.EnumerateObject())
        {
            if (known.Contains(field.Name)) fields._given[field.Name] = field.Value;
            else problems.Add(new Problem(field.Name, Shown(field.Value), Settings.Nearest(field.Name, known) is { } near ? $"there is no such field; did you mean {near}?" : $"there is no such field; known are {string.Join(", ", known)}"));
        }
        return fields;
    }

    /// <param name="form">What it must be.</param>
    public JsonElement? Required(string name, JsonValueKind kind, string form)
    {
        if (_given.TryGetValue(name, out JsonElement value) && value.ValueKind == kind) return value;
        _problems.Add(new Problem(name, _given.ContainsKey(name) ? Shown(value) : "", $"must be {form}"));
        return null;
    }

    /// <summary>A list of texts; empty where it is not given.</summary>
    public IReadOnlyList<string> Texts(string name)
    {
        if (!_given.TryGetValue(name, out JsonElement value)) return [];
        if (value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(e => e.ValueKind == JsonValueKind.String)) return [.. value.EnumerateArray().Select(e => e.GetString()!)];
        _problems.Add(new Problem(name, Shown(value), "must be a list of texts"));
        return [];
    }

    /// <summary>A whole number; null where it is not given.</summary>
    public long? Whole(string name)
    {
        if (!_given.TryGetValue(name, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.Number && value.TryGetInt64(out long number)) return number;
        _problems.Add(new Problem(name, Shown(value), "must be a whole number"));
        return null;
    }

    /// <summary>0 where it is not given. Whether it is too large is the queue's to say.</summary>
    public int Priority() => (int)Math.Clamp(Whole("priority") ?? 0, int.MinValue, int.MaxValue);

    private static string Shown(JsonElement value) => value.GetRawText() is { Length: <= 80 } all ? all : value.GetRawText()[..77] + "...";
}
