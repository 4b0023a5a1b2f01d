using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Web.Components.Parts.Datasets;

/// <summary>A record as it stands in its source.</summary>
/// <param name="Fields">Column and value: a text as it is, everything else as JSON; both cut where they are long.</param>
public sealed record RawRecord(string File, long Row, IReadOnlyList<(string Column, string Value)> Fields);

/// <summary>A look at a source: its files, and, where they were asked for, its columns and first records.</summary>
/// <param name="Columns">Null where no file was read.</param>
/// <param name="Mapping">What would be made of the records, in words and from which columns; null where that is not known.</param>
/// <param name="MappingProblem">Why no data set can be made of these columns without more being said.</param>
/// <param name="Problems">What is wrong with the first records.</param>
/// <param name="Hub">What the Hub says; null for files.</param>
public sealed record SourceSample(
    string Source, IReadOnlyList<(string Name, long Bytes)> Files, long Bytes, IReadOnlyList<string>? Columns, (DatasetKind Kind, ColumnMapping Columns)? Mapping, string? MappingProblem,
    IReadOnlyList<RawRecord> Records, IReadOnlyList<ReadingProblem> Problems, HubDataset? Hub)
{
    private const int MostRecords = 5, LongestValue = 2000, HubAttempts = 3;

    private static readonly JsonWriterOptions Readable = new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Looks at a source on a thread of its own. Files of the Hub are only got where their records are asked for.</summary>
    /// <param name="records">Whether files are read.</param>
    /// <param name="download">Told how far the first file of the Hub is.</param>
    /// <exception cref="UserException">The source cannot be had; the message says why.</exception>
    /// <exception cref="OperationCanceledException">Cancelled. What the thread is in the midst of ends a little later.</exception>
    public static Task<SourceSample> LookAsync(Store store, PrepareConfig recipe, bool records, Action<DownloadProgress>? download, CancellationToken cancel) =>
        Task.Run(() => Look(store, recipe, records, download, cancel), cancel).WaitAsync(cancel);

    private static SourceSample Look(Store store, PrepareConfig recipe, bool records, Action<DownloadProgress>? download, CancellationToken cancel)
    {
        // Somebody waits at the page: a Hub that cannot be reached is told soon.
        SourceOptions options = new() { ShardBytes = 1 << 20, FilesAhead = 0 };
        using OpenedSource opened = OpenedSource.Open(store, recipe.Source, options, download, store.Hub with { Attempts = HubAttempts }, cancel);
        Source source = opened.Source;
        (string, long)[] files = [.. source.Files.Select(f => (f.Name, f.Length))];
        if (!records) return new SourceSample(recipe.Source, files, source.Length, null, null, null, [], [], opened.Hub);
        try
        {
            IReadOnlyList<string> columns = source.Columns(cancel);
            ((DatasetKind, ColumnMapping)? mapping, string? wrong) = (null, null);
            try { mapping = opened.Mapping(recipe, cancel); }
            catch (UserException e) { wrong = e.Message; }
            ReadingReport report = new();
            RawRecord[] first = [.. source.Records(report, cancel).Take(MostRecords).Select(Raw)];
            return new SourceSample(recipe.Source, files, source.Length, columns, mapping, wrong, first, [.. report.Problems], opened.Hub);
        }
        catch (Exception e) when (e is InvalidDataException or IOException or UnauthorizedAccessException or HubException)
        {
            throw new UserException(e.Message);
        }
    }

    private static RawRecord Raw(Record record) => new(record.File, record.Row, [.. record.Names.Zip(record.Values, (name, value) => (name, Cut(Text(value))))]);

    private static string Cut(string text) => text.Length <= LongestValue ? text : text[..LongestValue] + $"… ({Figures.Whole(text.Length)} characters)";

    private static string Text(FieldValue value)
    {
        if (value.AsText is { } text) return text;
        ArrayBufferWriter<byte> buffer = new();
        using (Utf8JsonWriter json = new(buffer, Readable)) Write(value, json);
        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    private static void Write(FieldValue value, Utf8JsonWriter json)
    {
        switch (value.Kind)
        {
            case FieldKind.Text: json.WriteStringValue(value.AsText); break;
            case FieldKind.Whole: json.WriteNumberValue(value.AsWhole!.Value); break;
            case FieldKind.Number when double.IsFinite(value.AsNumber!.Value): json.WriteNumberValue(value.AsNumber.Value); break;
            case FieldKind.Number: json.WriteStringValue(value.ToString()); break;
            case FieldKind.Boolean: json.WriteBooleanValue(value.AsBoolean!.Value); break;
            case FieldKind.List:
                json.WriteStartArray();
                foreach (FieldValue one in value.AsList!) Write(one, json);
                json.WriteEndArray();
                break;
            case FieldKind.Record:
                json.WriteStartObject();
                foreach ((string name, FieldValue one) in value.AsRecord!.Names.Zip(value.AsRecord.Values))
                {
                    json.WritePropertyName(name);
                    Write(one, json);
                }
                json.WriteEndObject();
                break;
            default: json.WriteNullValue(); break;
        }
    }
}
