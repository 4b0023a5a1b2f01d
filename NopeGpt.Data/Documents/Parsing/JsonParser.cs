using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;

namespace NopeGpt.Data.Documents.Parsing;

/// <summary>JSON values as records: an object's properties are its columns; a list is a record with the column "messages", a text one with the
/// column "text". Properties that nobody asked for are passed over unparsed.</summary>
internal sealed class JsonParser : RecordParser
{
    public const string ListColumn = "messages";
    private const string NoRecord = "this is neither an object nor a list nor a text; each record must be an object like {\"text\": \"...\"}";
    private static readonly JsonReaderOptions _options = new() { MaxDepth = 64 };
    private readonly string[]? _wanted;
    private readonly byte[][] _wantedUtf8;
    private string[] _lastNames = [];
    private readonly JsonTextScanner _scanner = new();
    private string? _column;
    private byte[] _columnUtf8 = [];

    public JsonParser(string file, string[]? wanted) : base(file)
    {
        _wanted = wanted;
        _wantedUtf8 = [.. (wanted ?? []).Select(Encoding.UTF8.GetBytes)];
    }

    public override Record? Parse(ReadOnlySpan<byte> bytes, long row, out string? problem)
    {
        ReadOnlySpan<byte> valid = Valid(bytes);
        if (ParseValid(valid, row, out problem) is { } record) return record;
        // Python writes these; they are no JSON.
        return valid.IndexOf("NaN"u8) >= 0 || valid.IndexOf("Infinity"u8) >= 0 ? ParseValid(WithoutNumbersThatAreNone(valid), row, out problem) : null;
    }

    private Record? ParseValid(ReadOnlySpan<byte> bytes, long row, out string? problem)
    {
        problem = null;
        Utf8JsonReader reader = new(bytes, _options);
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
            if (record is not null && _wanted is not null && record.Values.All(value => value.IsNull) && Missing(bytes) is { } missing)
            {
                problem = missing;
                return null;
            }
            if (record is null) problem = NoRecord;
            return record;
        }
        catch (JsonException error)
        {
            problem = NoJson(error);
            return null;
        }
    }

    /// <summary>Finds the text without parsing the rest, where the record is as nearly all are; any other is parsed.</summary>
    public override FieldKind? ParseText(ReadOnlyMemory<byte> bytes, long row, string column, out ReadOnlyMemory<byte> text, out string? problem)
    {
        (text, problem) = (default, null);
        if (column != _column) (_column, _columnUtf8) = (column, Encoding.UTF8.GetBytes(column));
        Repaired = false;
        return Utf8.IsValid(bytes.Span) && _scanner.TryFind(bytes, _columnUtf8, out text) ? FieldKind.Text : base.ParseText(bytes, row, column, out text, out problem);
    }

    /// <summary>Why a record that holds nothing has none of the wanted columns; null where it has one.</summary>
    private string? Missing(ReadOnlySpan<byte> bytes)
    {
        Utf8JsonReader reader = new(bytes);
        reader.Read();
        if (reader.TokenType != JsonTokenType.StartObject) return ColumnMapping.NoneOf(_wanted!, [reader.TokenType == JsonTokenType.StartArray ? ListColumn : TextFiles.Column]);
        List<string> names = [];
        while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
        {
            names.Add(Text(ref reader));
            reader.Skip();
        }
        return names.Intersect(_wanted!).Any() ? null : ColumnMapping.NoneOf(_wanted!, names);
    }

    /// <summary>NaN, Infinity and -Infinity outside texts as null.</summary>
    private static byte[] WithoutNumbersThatAreNone(ReadOnlySpan<byte> bytes)
    {
        List<byte> changed = new(bytes.Length);
        bool inText = false;
        while (bytes.Length > 0)
        {
            int length = inText ? 0 : bytes.StartsWith("NaN"u8) ? 3 : bytes.StartsWith("-Infinity"u8) ? 9 : bytes.StartsWith("Infinity"u8) ? 8 : 0;
            if (length > 0) changed.AddRange("null"u8);
            else
            {
                length = inText && bytes[0] == '\\' && bytes.Length > 1 ? 2 : 1;
                if (bytes[0] == '"') inText = !inText;
                changed.AddRange(bytes[..length]);
            }
            bytes = bytes[length..];
        }
        return [.. changed];
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

    private static string NoJson(JsonException error) => $"this is not JSON ({error.Message.Split(". ")[0]}); each record must be an object like {{\"text\": \"...\"}}";

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
