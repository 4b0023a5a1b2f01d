using System.IO.Compression;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Tests;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests.Chat;

/// <summary>The instruct corpora of the shared data as records, read with the platform's JSON only.</summary>
internal static class Corpus
{
    public static IEnumerable<Record> Read(string name)
    {
        using Stream file = File.OpenRead(Needs.Data($"instruct/{name}"));
        using Stream plain = name.EndsWith(".gz", StringComparison.Ordinal) ? new GZipStream(file, CompressionMode.Decompress) : file;
        long row = 0;
        foreach (JsonElement json in JsonSerializer.DeserializeAsyncEnumerable<JsonElement>(plain, topLevelValues: name.Contains(".jsonl", StringComparison.Ordinal)).ToBlockingEnumerable()) yield return Record(json, name, ++row);
    }

    public static Record Record(JsonElement json, string file, long row) => Value(json) is { AsRecord: { } record }
        ? new([.. record.Names], [.. record.Values], file, row)
        : new(["messages"], [Value(json)], file, row);

    public static FieldValue Value(JsonElement json) => json.ValueKind switch
    {
        JsonValueKind.String => FieldValue.Of(json.GetString()),
        JsonValueKind.Number => json.TryGetInt64(out long whole) ? FieldValue.Of(whole) : FieldValue.Of(json.GetDouble()),
        JsonValueKind.True or JsonValueKind.False => FieldValue.Of(json.GetBoolean()),
        JsonValueKind.Array => FieldValue.Of([.. json.EnumerateArray().Select(Value)]),
        JsonValueKind.Object => FieldValue.Of(new Record([.. json.EnumerateObject().Select(p => p.Name)], [.. json.EnumerateObject().Select(p => Value(p.Value))])),
        _ => default,
    };
}
