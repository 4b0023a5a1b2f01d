using System.Text.Json;

namespace NopeGpt.Data.Tokenization;

/// <summary>A value in a JSON document together with the path to it, so that what is wrong with it can be said with field, value and reason.</summary>
internal readonly struct JsonField(JsonElement value, string path)
{
    private const int ShownLength = 80;

    public JsonElement Value => value;

    public string Path => path;

    public bool IsNull => value.ValueKind == JsonValueKind.Null;

    /// <exception cref="FormatException">There is none.</exception>
    public JsonField this[string name] => Find(name) ?? throw new FormatException($"{Inner(name)} is missing");

    /// <summary>The field, or null where it is missing; one that is there may be JSON's null.</summary>
    public JsonField? Find(string name)
    {
        if (value.ValueKind != JsonValueKind.Object) throw Wrong("an object");
        return value.TryGetProperty(name, out JsonElement inner) ? new JsonField(inner, Inner(name)) : null;
    }

    /// <summary>As <see cref="Find"/>; null for JSON's null too.</summary>
    public JsonField? Given(string name) => Find(name) is { IsNull: false } field ? field : null;

    public IEnumerable<JsonField> Items()
    {
        if (value.ValueKind != JsonValueKind.Array) throw Wrong("a list");
        return Each(value, path);

        static IEnumerable<JsonField> Each(JsonElement list, string path)
        {
            int index = 0;
            foreach (JsonElement item in list.EnumerateArray()) yield return new JsonField(item, $"{path}[{index++}]");
        }
    }

    public string Text() => value.ValueKind == JsonValueKind.String ? value.GetString()! : throw Wrong("a text");

    public int Whole() => value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number) ? number : throw Wrong("a whole number");

    public bool Flag() => value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.GetBoolean() : throw Wrong("true or false");

    /// <summary>The flag of that name, or the default where it is missing.</summary>
    public bool Flag(string name, bool otherwise) => Find(name)?.Flag() ?? otherwise;

    /// <summary>Refuses every key but these: what is not known may change the ids.</summary>
    public void Only(params ReadOnlySpan<string> names)
    {
        if (value.ValueKind != JsonValueKind.Object) throw Wrong("an object");
        foreach (JsonProperty property in value.EnumerateObject())
            if (!names.Contains(property.Name)) throw new JsonField(property.Value, Inner(property.Name)).Refused("this field is not known here");
    }

    /// <summary>The exception that refuses this value.</summary>
    public FormatException Refused(string reason) => new($"{path} = {Shown()}: {reason}");

    private FormatException Wrong(string wanted) => Refused($"it must be {wanted}");

    private string Inner(string name) => path.Length == 0 ? name : $"{path}.{name}";

    private string Shown()
    {
        // A text as it is meant, without the escapes of the file.
        string text = (value.ValueKind == JsonValueKind.String ? $"\"{value.GetString()}\"" : value.GetRawText()).ReplaceLineEndings(" ");
        return text.Length <= ShownLength ? text : $"{text[..ShownLength]}…";
    }
}
