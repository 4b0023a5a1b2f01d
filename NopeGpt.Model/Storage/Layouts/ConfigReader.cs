using System.Text.Json;
using System.Text.RegularExpressions;

namespace NopeGpt.Model.Storage.Layouts;

/// <summary>Reads the config.json of another program. Every key is either asked for, known to say nothing about the network, or an error;
/// all that is wrong is reported at once.</summary>
internal sealed partial class ConfigReader
{
    // Those on the Hub have a few kilobytes.
    private const long MaxBytes = 1 << 24;
    private const int MaxText = 100;

    private readonly Dictionary<string, JsonElement> _values = new(StringComparer.Ordinal);
    private readonly HashSet<string> _known = new(StringComparer.Ordinal);
    private readonly List<Problem> _problems = [];

    /// <exception cref="InvalidDataException">The file cannot be read or is not a JSON object with each key once.</exception>
    public ConfigReader(string path)
    {
        Path = path;
        try
        {
            if (new FileInfo(path).Length > MaxBytes) throw new InvalidDataException($"{path}: it has more than {MaxBytes} bytes, so it is no config; copy the model's config.json from its source.");
            JsonElement root = JsonElement.Parse(File.ReadAllText(path), new JsonDocumentOptions { MaxDepth = 32, AllowDuplicateProperties = false });
            if (root.ValueKind != JsonValueKind.Object) throw new InvalidDataException($"{path}: not a JSON object; a config.json holds the model's sizes by name.");
            foreach (JsonProperty property in root.EnumerateObject()) _values.Add(property.Name, property.Value);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new InvalidDataException($"{path}: not a valid config.json ({e.Message.TrimEnd('.')}); write it again or copy it from its source.", e);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: the model's config cannot be read ({e.Message}); choose a folder that has one.", e);
        }
    }

    public string Path { get; }

    /// <summary>True where the key is there, even as null.</summary>
    public bool Has(string key) => _values.ContainsKey(key);

    /// <summary>A whole number.</summary>
    /// <param name="absent">The value where the key is not there or null; null: the key must be there.</param>
    public int Integer(string key, int? absent = null)
    {
        if (!Present(key, out JsonElement value)) return absent ?? Missing<int>(key);
        return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out int number) ? number : Wrong<int>(key, "is not a whole number of 32 bits: write one");
    }

    /// <summary>The first of several keys for the same whole number that is there; where several are, they must agree.</summary>
    public int Integer(IReadOnlyList<string> keys, out string used)
    {
        string[] present = [.. keys.Where(k => Present(k, out _))];
        string first = used = present.Length > 0 ? present[0] : keys[0];
        int value = Integer(first);
        foreach (string other in present.Skip(1).Where(o => Integer(o) != value)) Refuse(other, $"differs from {first} = {value}: make them equal");
        return value;
    }

    public double Number(string key, double? absent = null)
    {
        if (!Present(key, out JsonElement value)) return absent ?? Missing<double>(key);
        return value.ValueKind == JsonValueKind.Number && value.TryGetDouble(out double number) && double.IsFinite(number) ? number : Wrong<double>(key, "is not a finite number: write one");
    }

    public bool Flag(string key, bool absent)
    {
        if (!Present(key, out JsonElement value)) return absent;
        return value.ValueKind is JsonValueKind.True or JsonValueKind.False ? value.GetBoolean() : Wrong<bool>(key, "is neither true nor false: write one of them");
    }

    /// <summary>The text of a key; null where it is absent, null or something else, which is reported.</summary>
    public string? Text(string key)
    {
        if (!Present(key, out JsonElement value)) return null;
        try
        {
            return value.ValueKind == JsonValueKind.String ? value.GetString() : Wrong<string>(key, "is not a string: write one");
        }
        catch (InvalidOperationException)
        {
            return Wrong<string>(key, "is not valid text: write it again");
        }
    }

    /// <summary>A key that must have one of these texts where it is there.</summary>
    public void TextIs(string key, IReadOnlyList<string> accepted, string why)
    {
        if (Text(key) is { } text && !accepted.Contains(text)) Refuse(key, $"{why}: only {string.Join(" and ", accepted)} can be loaded");
    }

    /// <summary>A list that must hold one of these texts where it is there.</summary>
    public void ListHolds(string key, IReadOnlyList<string> accepted, string why)
    {
        if (!Present(key, out JsonElement value)) return;
        bool holds = value.ValueKind == JsonValueKind.Array && value.EnumerateArray().Any(e => e.ValueKind == JsonValueKind.String && accepted.Any(a => e.ValueEquals(a)));
        if (!holds) Refuse(key, $"{why}: only {string.Join(" and ", accepted)} can be loaded");
    }

    /// <summary>A key that must have this value where it is there.</summary>
    public void FlagIs(string key, bool accepted, string why)
    {
        if (Flag(key, accepted) != accepted) Refuse(key, $"{why}: only {(accepted ? "true" : "false")} can be loaded");
    }

    /// <summary>A key that must be absent, null, or an empty list or object.</summary>
    public void Empty(string key, string why)
    {
        if (!Present(key, out JsonElement value)) return;
        bool empty = value.ValueKind switch
        {
            JsonValueKind.Object => value.EnumerateObject().MoveNext() is false,
            JsonValueKind.Array => value.GetArrayLength() == 0,
            _ => false,
        };
        if (!empty) Refuse(key, $"{why}: only null can be loaded");
    }

    /// <summary>The object under a key, or null; anything else is reported.</summary>
    public JsonElement? Object(string key)
    {
        if (!Present(key, out JsonElement value)) return null;
        if (value.ValueKind == JsonValueKind.Object) return value;
        Refuse(key, "is not an object: write one, or null");
        return null;
    }

    /// <summary>Keys that say nothing about what the network computes.</summary>
    public void Ignore(params IEnumerable<string> keys) => _known.UnionWith(keys);

    public void Refuse(string key, string message)
    {
        _known.Add(key);
        _problems.Add(new(key, _values.TryGetValue(key, out JsonElement value) ? Short(value.GetRawText()) : "(absent)", message));
    }

    /// <summary>The config, where nothing was wrong.</summary>
    /// <param name="keys">The file's key for each of <see cref="ModelConfig"/>'s, for the errors about sizes.</param>
    /// <exception cref="InvalidDataException">All that is wrong.</exception>
    public ModelConfig Finish(string layout, ModelConfig config, IReadOnlyDictionary<string, string> keys)
    {
        foreach (string key in _values.Keys.Where(k => !_known.Contains(k)))
            _problems.Add(new(Short(key), Short(_values[key].GetRawText()), $"is unknown in a {layout} config, so the network may be another: remove the key if it says nothing about the network"));
        if (_problems.Count == 0) _problems.AddRange(Translated(config.Problems(), keys));
        if (_problems.Count > 0) throw new InvalidDataException($"{Path}: {string.Join("; ", _problems)}.");
        return config;
    }

    /// <summary>Problems of a config in the words of another program's file.</summary>
    /// <param name="keys">The file's word for each of <see cref="ModelConfig"/>'s keys.</param>
    public static IEnumerable<Problem> Translated(IEnumerable<Problem> problems, IReadOnlyDictionary<string, string> keys)
    {
        return problems.Select(p => new Problem(Translate(p.Field), p.Value, Translate(p.Message))).Distinct();

        string Translate(string text) => Word().Replace(text, word => keys.GetValueOrDefault(word.Value, word.Value));
    }

    private bool Present(string key, out JsonElement value)
    {
        _known.Add(key);
        return _values.TryGetValue(key, out value) && value.ValueKind != JsonValueKind.Null;
    }

    private T? Missing<T>(string key)
    {
        Refuse(key, "is missing: copy the config.json from the model's source");
        return default;
    }

    private T? Wrong<T>(string key, string message)
    {
        Refuse(key, message);
        return default;
    }

    private static string Short(string text) => text.Length <= MaxText ? text : text[..MaxText] + "…";

    [GeneratedRegex("[a-z_]+")]
    private static partial Regex Word();
}
