using System.Reflection;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace NopeGpt.Model;

/// <summary>The config.json of a <see cref="ModelConfig"/>.</summary>
internal static class ModelConfigFile
{
    // A config.json is some hundred bytes. What is far larger is another file, and not worth the memory.
    private const long MaxBytes = 1 << 20;

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    private static readonly Dictionary<string, PropertyInfo> Options = typeof(ModelConfig).GetProperties()
        .Where(p => p.CanWrite).OrderBy(p => p.MetadataToken).ToDictionary(p => p.GetCustomAttribute<JsonPropertyNameAttribute>()!.Name);

    // The keys of the Python package.
    private static readonly string[] Required =
        ["vocabulary_size", "embedding_dimensions", "num_q_heads", "num_kv_heads", "num_decoder_layers", "hidden_ratio", "dropout"];

    public static string Serialize(ModelConfig config)
    {
        ModelConfig defaults = new();
        JsonObject json = (JsonObject)JsonSerializer.SerializeToNode(config)!;
        foreach ((string key, PropertyInfo option) in Options)
            if (!Required.Contains(key) && Equals(option.GetValue(config), option.GetValue(defaults))) json.Remove(key);
        return json.ToJsonString(Indented) + "\n";
    }

    public static ModelConfig Read(string path)
    {
        string text;
        try
        {
            long bytes = new FileInfo(path).Length;
            if (bytes > MaxBytes) throw new InvalidDataException($"{path}: {bytes} bytes are no config.json; choose a folder that has one.");
            text = File.ReadAllText(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new InvalidDataException($"{path}: the model's config.json cannot be read ({e.Message}); choose a folder that has one.", e);
        }
        try
        {
            using JsonDocument json = JsonDocument.Parse(text);
            Check(path, json.RootElement);
            ModelConfig config = json.RootElement.Deserialize<ModelConfig>()!;
            string[] problems = [.. config.Problems().Select(p => p.ToString())];
            return problems.Length == 0 ? config : throw new InvalidDataException($"{path}: {string.Join("; ", problems)}.");
        }
        // The second is what a name or a text with half a surrogate pair ends in.
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new InvalidDataException($"{path}: not a valid config.json ({e.Message}); write it again or copy it from its source.", e);
        }
    }

    // An unknown key may ask for a network that this one is not, and a missing one would silently become our default.
    private static void Check(string path, JsonElement json)
    {
        if (json.ValueKind != JsonValueKind.Object)
            throw new InvalidDataException($"{path}: not a JSON object; a config.json holds the model's sizes by name.");
        HashSet<string> found = [];
        List<string> problems = [];
        foreach (JsonProperty given in json.EnumerateObject())
        {
            if (!found.Add(given.Name)) problems.Add($"{Short(given.Name)} is there twice: keep one");
            else if (!Options.TryGetValue(given.Name, out PropertyInfo? option)) problems.Add(Unknown(given.Name));
            else if (Wanted(option.PropertyType, given.Value) is string wanted) problems.Add($"{given.Name} = {Short(given.Value.GetRawText())}: must be {wanted}");
        }
        string[] missing = [.. Required.Where(k => !found.Contains(k))];
        if (missing.Length > 0) problems.Insert(0, $"lacks {string.Join(", ", missing)}: add what the model was made with");
        if (problems.Count > 0) throw new InvalidDataException($"{path}: {string.Join("; ", problems)}.");
    }

    private static string Unknown(string key) => NearestName.Of(key, Options.Keys) is string nearest
        ? $"has the unknown {Short(key)}: did you mean {nearest}?"
        : $"has the unknown {Short(key)}: known are {string.Join(", ", Options.Keys)}";

    /// <summary>What a key of the type must be where the value is not; otherwise null.</summary>
    private static string? Wanted(Type type, JsonElement value)
    {
        if (type == typeof(int)) return value.ValueKind == JsonValueKind.Number && value.TryGetInt32(out _) ? null : "a whole number";
        if (type == typeof(double)) return value.ValueKind == JsonValueKind.Number ? null : "a number";
        if (type == typeof(bool)) return value.ValueKind is JsonValueKind.True or JsonValueKind.False ? null : "true or false";
        string[] choices = [.. Enum.GetNames(type).Select(JsonNamingPolicy.SnakeCaseLower.ConvertName)];
        return value.ValueKind == JsonValueKind.String && choices.Contains(value.GetString()) ? null : $"one of {string.Join(", ", choices)}";
    }

    private static string Short(string text) => text.Length <= 80 ? text : text[..77] + "...";
}
