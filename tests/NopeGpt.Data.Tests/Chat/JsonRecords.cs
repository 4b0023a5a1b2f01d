using System.Text.Json;
using NopeGpt.Data.Documents;
using Record = NopeGpt.Data.Documents.Record;

namespace NopeGpt.Data.Tests.Chat;

/// <summary>JSON as records, read with the platform's JSON only.</summary>
internal static class JsonRecords
{
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
