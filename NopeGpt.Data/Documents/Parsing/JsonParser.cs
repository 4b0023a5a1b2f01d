using System.Globalization;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Data.Documents.Parsing;

/// <summary>JSON values as records: an object's properties are its columns; a list is a record with the column "messages", a text one with the
/// column "text". Properties that nobody asked for are passed over unparsed.</summary>
internal sealed class JsonParser : RecordParser
{
    public const string ListColumn = "messages";
    private readonly string[]? _wanted;
    private readonly byte[][] _wantedUtf8;
    private string[] _lastNames = [];

    public JsonParser(string file, string[]? wanted) : base(file)
    {
        _wanted = wanted;
        _wantedUtf8 = [.. (wanted ?? []).Select(Encoding.UTF8.GetBytes)];
    }

    public override Record? Parse(ReadOnlySpan<byte> bytes, long row, out string? problem)
    {
        problem = null;
        Utf8JsonReader reader = new(Valid(bytes), new JsonReaderOptions { MaxDepth = 64 });
        try
        {
            reader.Read();
            Record? record = reader.TokenType switch
            {
                JsonTokenType.StartObject => _wanted is null ? All(ref reader, row) : Wanted(ref reader, row),
                JsonTokenType.StartArray => Single(ListColumn, Value(ref reader), row),
                JsonTokenType.String => Single(TextFiles.Column, Value(ref reader), row),
                _ => null,
            };
            // Throws when something stands behind the value.
            reader.Read();
            if (record is null) problem = "this is neither an object nor a list nor a text; each record must be an object like {\"text\": \"...\"}";
            return record;
        }
        catch (JsonException error)
        {
            problem = $"this is not JSON ({error.Message.Split(". ")[0]}); each record must be an object like {{\"text\": \"...\"}}";
            return null;
        }
    }

    private Record Single(string name, FieldValue value, long row) =>
        _wanted is null ? new([name], [value], File, row) : new(_wanted, [.. _wanted.Select(w => w == name ? value : default)], File, row);

    private Record Wanted(ref Utf8JsonReader reader, long row)
    {
        FieldValue[] values = new FieldValue[_wanted!.Length];
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            int place = PlaceOf(ref reader);
            reader.Read();
            if (place < 0) reader.Skip();
            else values[place] = Value(ref reader);
        }
        return new(_wanted, values, File, row);
    }

    private int PlaceOf(ref Utf8JsonReader reader)
    {
        if (reader.ValueIsEscaped) return Array.IndexOf(_wanted!, Text(ref reader));
        for (int i = 0; i < _wantedUtf8.Length; i++)
            if (reader.ValueSpan.SequenceEqual(_wantedUtf8[i])) return i;
        return -1;
    }

    private Record All(ref Utf8JsonReader reader, long row)
    {
        (string[] names, FieldValue[] values) = Properties(ref reader);
        // Rows of one shape share their names.
        if (names.AsSpan().SequenceEqual(_lastNames)) names = _lastNames;
        else _lastNames = names;
        return new(names, values, File, row);
    }

    private (string[] Names, FieldValue[] Values) Properties(ref Utf8JsonReader reader)
    {
        List<string> names = [];
        List<FieldValue> values = [];
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            string name = Text(ref reader);
            reader.Read();
            FieldValue value = Value(ref reader);
            // As in most JSON readers, the last of several properties of one name counts. Objects have few properties.
            int place = names.Count < 64 ? names.IndexOf(name) : -1;
            if (place >= 0)
            {
                values[place] = value;
                continue;
            }
            names.Add(name);
            values.Add(value);
        }
        return ([.. names], [.. values]);
    }

    private FieldValue Value(ref Utf8JsonReader reader)
    {
        switch (reader.TokenType)
        {
            case JsonTokenType.String:
                return FieldValue.Of(Text(ref reader));
            case JsonTokenType.Number:
                return reader.TryGetInt64(out long whole) ? FieldValue.Of(whole) : FieldValue.Of(double.Parse(reader.ValueSpan, CultureInfo.InvariantCulture));
            case JsonTokenType.True or JsonTokenType.False:
                return FieldValue.Of(reader.TokenType == JsonTokenType.True);
            case JsonTokenType.StartArray:
                List<FieldValue> items = [];
                while (reader.Read() && reader.TokenType != JsonTokenType.EndArray) items.Add(Value(ref reader));
                return FieldValue.Of(items.ToArray());
            case JsonTokenType.StartObject:
                (string[] names, FieldValue[] values) = Properties(ref reader);
                return FieldValue.Of(new Record(names, values));
            default:
                return default;
        }
    }

    private string Text(ref Utf8JsonReader reader)
    {
        if (!reader.ValueIsEscaped) return Encoding.UTF8.GetString(reader.ValueSpan);
        try
        {
            return reader.GetString()!;
        }
        catch (InvalidOperationException)
        {
            // Half of a character, such as "\ud800", is JSON but no text.
            Repaired = true;
            return JsonText.Unescape(reader.ValueSpan);
        }
    }
}
