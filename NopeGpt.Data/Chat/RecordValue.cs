using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using NopeGpt.Data.Documents;

namespace NopeGpt.Data.Chat;

/// <summary>A value in a record, with its path.</summary>
internal readonly record struct RecordValue(FieldValue Value, string Path)
{
    private const int MostShown = 60;

    private static readonly JsonWriterOptions _json = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public bool IsText => Value.Kind == FieldKind.Text;
    public bool IsList => Value.Kind == FieldKind.List;
    public bool IsRecord => Value.Kind == FieldKind.Record;

    /// <summary>Whether it begins as the text of a list of objects, as tables without lists have it.</summary>
    public bool IsWrittenList => Value.AsText is { } text && text.AsSpan().TrimStart() is ['[', .. var rest] && rest.TrimStart() is ['{', ..];

    /// <summary>The field of the first of these names that is there and not null.</summary>
    public RecordValue? Find(params ReadOnlySpan<string> names)
    {
        foreach (string name in names)
            if (Value.AsRecord is { } record && record[name] is { IsNull: false } value) return new RecordValue(value, Path.Length == 0 ? name : $"{Path}.{name}");
        return null;
    }

    /// <exception cref="RecordException">It is no list.</exception>
    public IEnumerable<RecordValue> Items(string what)
    {
        string path = Path;
        IReadOnlyList<FieldValue> list = Value.AsList ?? throw Wrong($"must be {what}");
        return list.Select((item, index) => new RecordValue(item, $"{path}[{index}]"));
    }

    /// <exception cref="RecordException">It is no text.</exception>
    public string Text() => Value.AsText ?? throw Wrong("must be a text");

    public RecordException Wrong(string must, string cure = "correct the record, or map the columns as they are in this data set") => new(Path, $"= {Shown()} {must}", cure);

    public RecordException Missing(string name) =>
        new(Path.Length == 0 ? name : $"{Path}.{name}", $"is missing{(IsRecord ? $" among {string.Join(", ", Value.AsRecord!.Names)}" : "")}", "add it, or map the columns as they are in this data set");

    /// <summary>As JSON on one line.</summary>
    public string Json()
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, _json)) Write(json, Value);
        return Encoding.UTF8.GetString(stream.GetBuffer(), 0, (int)stream.Length);
    }

    private string Shown() => Json() is { Length: > MostShown } json ? $"{json[..MostShown]}… ({json.Length} characters)" : Json();

    private static void Write(Utf8JsonWriter json, FieldValue value)
    {
        switch (value.Kind)
        {
            case FieldKind.Null: json.WriteNullValue(); break;
            case FieldKind.Text: json.WriteStringValue(value.AsText); break;
            case FieldKind.Whole: json.WriteNumberValue(value.AsWhole!.Value); break;
            case FieldKind.Number when double.IsFinite(value.AsNumber!.Value): json.WriteNumberValue(value.AsNumber.Value); break;
            case FieldKind.Number: json.WriteStringValue($"{value.AsNumber}"); break;
            case FieldKind.Boolean: json.WriteBooleanValue(value.AsBoolean!.Value); break;
            case FieldKind.List:
                json.WriteStartArray();
                foreach (FieldValue item in value.AsList!) Write(json, item);
                json.WriteEndArray();
                break;
            default:
                json.WriteStartObject();
                foreach ((string name, FieldValue field) in value.AsRecord!.Names.Zip(value.AsRecord.Values))
                {
                    json.WritePropertyName(name);
                    Write(json, field);
                }
                json.WriteEndObject();
                break;
        }
    }
}
