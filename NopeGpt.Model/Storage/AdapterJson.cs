using System.Text.Json;
using System.Text.Json.Nodes;

namespace NopeGpt.Model.Storage;

/// <summary>The object of an adapter's JSON file, or one within it. Every value is checked when it is read; errors name file, field, value and cure.</summary>
internal sealed class AdapterJson
{
    // Such a file is some kilobytes. What is far larger is another file, and not worth the memory.
    private const long MaxBytes = 1 << 20;
    private const int MaxDepth = 8;

    private AdapterJson(string path, JsonObject values) => (Path, Values) = (path, values);

    public string Path { get; }

    public JsonObject Values { get; }

    public static AdapterJson Read(string path)
    {
        try
        {
            long bytes = new FileInfo(path).Length;
            if (bytes > MaxBytes) throw new InvalidDataException($"{path}: {bytes} bytes are no settings of an adapter; copy the adapter again.");
            JsonNode? json = JsonNode.Parse(File.ReadAllText(path), documentOptions: new JsonDocumentOptions { AllowDuplicateProperties = false, MaxDepth = MaxDepth });
            return json is JsonObject values ? new(path, values) : throw new InvalidDataException($"{path}: not a JSON object; it holds an adapter's settings by name.");
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{path}: not valid JSON ({e.Message.TrimEnd('.')}); copy the adapter again.", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: cannot be read ({e.Message.TrimEnd('.')}); choose a folder that has an adapter.", e);
        }
    }

    public bool Has(string key) => Values[key] is not null;

    public int Integer(string key) => Value<int>(key, "a whole number");

    public double Number(string key) => Value<double>(key, "a number");

    public string String(string key) => Value<string>(key, "a string");

    public bool Flag(string key) => Has(key) && Value<bool>(key, "true or false");

    public AdapterJson Object(string key) => Values[key] is JsonObject values ? new(Path, values) : throw Wrong(key, "must be an object: copy the adapter again");

    /// <summary>The record of the given keys, all of which must be there.</summary>
    public T Settings<T>(IReadOnlyList<string> keys)
    {
        string[] missing = [.. keys.Where(k => !Has(k))];
        if (missing.Length > 0) throw new InvalidDataException($"{Path}: lacks {string.Join(", ", missing)}; copy the adapter again.");
        try
        {
            return new JsonObject(keys.Select(k => KeyValuePair.Create(k, Values[k]?.DeepClone()))).Deserialize<T>()!;
        }
        catch (JsonException e)
        {
            throw new InvalidDataException($"{Path}: {e.Path?.TrimStart('$', '.')} is not what it must be ({e.Message.TrimEnd('.')}); copy the adapter again.", e);
        }
    }

    /// <exception cref="InvalidDataException">There are problems.</exception>
    public void Check(IEnumerable<Problem> problems)
    {
        string[] all = [.. problems.Select(p => p.ToString())];
        if (all.Length > 0) throw new InvalidDataException($"{Path}: {string.Join("; ", all)}.");
    }

    public InvalidDataException Wrong(string key, string reason)
    {
        string value = Values[key]?.ToJsonString() ?? "missing";
        return new($"{Path}: {key} = {(value.Length <= 80 ? value : value[..77] + "...")}: {reason}.");
    }

    private T Value<T>(string key, string kind) =>
        Values[key] is JsonValue value && value.TryGetValue(out T? found) ? found : throw Wrong(key, $"must be {kind}: copy the adapter again");
}
