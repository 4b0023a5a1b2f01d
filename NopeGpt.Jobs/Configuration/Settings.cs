using System.Collections;
using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Reflection;
using System.Text.Json;
using System.Text.RegularExpressions;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Configuration;

/// <summary>One value of a <see cref="RunConfig"/> that a person can set.</summary>
/// <param name="Path">Its place: training.max_steps.</param>
/// <param name="Name">The last part of the path: max_steps.</param>
/// <param name="Minimum">Smallest allowed value of a number, where there is one.</param>
/// <param name="Maximum">Largest allowed value of a number, where there is one.</param>
public sealed record Setting(string Path, string Name, string Description, Type Type, object? Default, double? Minimum, double? Maximum)
{
    internal PropertyInfo[] Properties { get; init; } = [];

    /// <summary>The section: training; empty for the top level.</summary>
    public string Section => Path.Length == Name.Length ? "" : Path[..^(Name.Length + 1)];
}

/// <summary>The settings of a run, read off <see cref="RunConfig"/>'s properties: the form, the JSON interface and the command line use this
/// one list, so that a new property appears in all three.</summary>
public static partial class Settings
{
    private const string PresetName = "preset";

    public static IReadOnlyList<Setting> All { get; } = [.. Collect(typeof(RunConfig), new RunConfig(), "", [])];

    /// <summary>The JSON of configurations: snake_case names, enumerations in words.</summary>
    public static JsonSerializerOptions Json { get; } = new(TrainingEvent.Json) { WriteIndented = true };

    public static object? Get(RunConfig config, string path) => Get(config, Known(path));

    public static object? Get(RunConfig config, Setting setting)
    {
        object? value = config;
        foreach (PropertyInfo property in setting.Properties) value = property.GetValue(value);
        return value;
    }

    /// <summary>A copy with one value changed.</summary>
    public static RunConfig Set(RunConfig config, string path, object? value) => Set(config, Known(path), value);

    /// <summary>A configuration from JSON. Everything wrong is added to <paramref name="problems"/>: unknown names with the nearest known
    /// one, values of another type. Names may be written in snake_case, camelCase or kebab-case.</summary>
    /// <remarks>"preset" names the recipe of <see cref="Presets"/> to start from, and within "model" the architecture of <see cref="ModelPresets"/>; what else
    /// is given changes it.</remarks>
    public static RunConfig Bind(JsonElement json, List<Problem> problems) => Bind(Start(json, problems), json, problems);

    public static RunConfig Bind(RunConfig start, JsonElement json, List<Problem> problems)
    {
        if (json.ValueKind != JsonValueKind.Object)
        {
            problems.Add(new Problem("", Shorten(json.GetRawText()), "a run's configuration is a JSON object: {\"kind\": \"pretrain\", ...}"));
            return start;
        }
        return BindObject(start, json, "", problems);
    }

    /// <summary>A copy with one value changed, as given in words on the command line or in a field of a form.</summary>
    /// <param name="pathOrName">training.max_steps or, where only one setting has that name, max_steps; with - or _.</param>
    public static RunConfig BindText(RunConfig start, string pathOrName, string text, List<Problem> problems)
    {
        string wanted = Plain(pathOrName);
        Setting? setting = All.FirstOrDefault(s => Plain(s.Path) == wanted) ?? All.FirstOrDefault(s => Plain(s.Name) == wanted);
        if (setting is null)
        {
            problems.Add(Unknown(pathOrName, text, All.Select(s => s.Name)));
            return start;
        }
        if (setting.Type == typeof(IReadOnlyList<string>)) return Set(start, setting, ListSeparator().Split(text).Select(part => part.Trim()).Where(part => part.Length > 0).ToArray());
        return TryParse(setting.Type, text.Trim(), out object? value) ? Set(start, setting, value) : Wrong(start, setting, text, problems);
    }

    /// <summary>The settings that a name can mean: the one of that path, or else all of that name; with - or _.</summary>
    internal static IReadOnlyList<Setting> Matching(string pathOrName)
    {
        string wanted = Plain(pathOrName);
        Setting[] paths = [.. All.Where(s => Plain(s.Path) == wanted)];
        return paths.Length > 0 ? paths : [.. All.Where(s => Plain(s.Name) == wanted)];
    }

    /// <summary>The known name that is nearest to a mistyped one, by edit distance; null when none is near.</summary>
    public static string? Nearest(string name, IEnumerable<string> known) => NearestName.Of(name, known);

    /// <summary>Reads a number that a person has written. NaN and the infinities, also by their size (1e999), are none.</summary>
    public static bool TryNumber(string text, out double number) => double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture, out number) && double.IsFinite(number);

    /// <summary>snake_case of a property's or enumeration value's name.</summary>
    public static string SnakeCase(string name) => JsonNamingPolicy.SnakeCaseLower.ConvertName(name);

    /// <summary>What a person may write for a type, in words.</summary>
    public static string Describe(Type type) =>
        type.IsEnum ? "one of " + string.Join(", ", Enum.GetNames(type).Select(SnakeCase))
        : type == typeof(bool) ? "true or false"
        : type == typeof(ulong) ? "a whole number from 0 to 18446744073709551615"
        : type == typeof(int) || type == typeof(long) ? "a whole number"
        : type == typeof(double) ? "a number"
        : type == typeof(IReadOnlyList<string>) ? "a list of texts"
        : "a text";

    private static IEnumerable<Setting> Collect(Type type, object defaults, string prefix, PropertyInfo[] above)
    {
        foreach (PropertyInfo property in Writable(type))
        {
            string name = SnakeCase(property.Name);
            object? value = property.GetValue(defaults);
            PropertyInfo[] chain = [.. above, property];
            if (IsSection(property.PropertyType))
            {
                foreach (Setting inner in Collect(property.PropertyType, value!, prefix + name + ".", chain)) yield return inner;
                continue;
            }
            RangeAttribute? range = property.GetCustomAttribute<RangeAttribute>();
            yield return new Setting(prefix + name, name, property.GetCustomAttribute<DescriptionAttribute>()?.Description ?? "", property.PropertyType, value,
                range is null ? null : Convert.ToDouble(range.Minimum, CultureInfo.InvariantCulture), range is null ? null : Convert.ToDouble(range.Maximum, CultureInfo.InvariantCulture))
            { Properties = chain };
        }
    }

    private static IEnumerable<PropertyInfo> Writable(Type type) =>
        type.GetProperties(BindingFlags.Public | BindingFlags.Instance).Where(p => p.CanWrite && p.GetIndexParameters().Length == 0).OrderBy(p => p.MetadataToken);

    private static bool IsSection(Type type) => type.IsClass && type != typeof(string) && !typeof(IEnumerable).IsAssignableFrom(type);

    private static Setting Known(string path) => All.FirstOrDefault(s => s.Path == path) ?? throw new ArgumentException($"there is no setting '{path}'", nameof(path));

    private static RunConfig Set(RunConfig config, Setting setting, object? value) => (RunConfig)Set(config, setting.Properties, value);

    private static object Set(object record, ReadOnlySpan<PropertyInfo> chain, object? value)
    {
        object copy = Copy(record);
        chain[0].SetValue(copy, chain.Length == 1 ? value : Set(chain[0].GetValue(record)!, chain[1..], value));
        return copy;
    }

    // Records copy themselves through a method that the compiler names so.
    private static object Copy(object record) => record.GetType().GetMethod("<Clone>$")!.Invoke(record, null)!;

    private static RunConfig Start(JsonElement json, List<Problem> problems)
    {
        if (json.ValueKind != JsonValueKind.Object) return new RunConfig();
        if (!json.TryGetProperty(PresetName, out JsonElement named)) return RunConfig.For(KindOf(json));
        if (named.ValueKind != JsonValueKind.String)
        {
            problems.Add(new Problem(PresetName, Shorten(named.GetRawText()), "must be a text: the name of a preset"));
            return new RunConfig();
        }
        try { return Presets.Find(named.GetString()!).Config; }
        catch (UserException e)
        {
            problems.Add(new Problem(PresetName, Shorten(named.GetString()!), e.Message));
            return new RunConfig();
        }
    }

    // A kind that is none is a problem of its own, later.
    private static RunKind KindOf(JsonElement json) =>
        json.EnumerateObject().LastOrDefault(p => Plain(p.Name) == "kind").Value is { ValueKind: JsonValueKind.String } kind && TryParse(typeof(RunKind), kind.GetString()!, out object? known) ? (RunKind)known! : new RunConfig().Kind;

    // "model": {"preset": "lil-lm", ...} begins with that architecture; the vocabulary stays the tokenizer's unless it is given.
    private static ModelConfig StartOfModel(ModelConfig start, JsonElement json, string path, List<Problem> problems)
    {
        if (!json.TryGetProperty(PresetName, out JsonElement named)) return start;
        try
        {
            if (named.ValueKind == JsonValueKind.String) return ModelPresets.Find(named.GetString()!).Config with { VocabularySize = 0 };
            problems.Add(new Problem($"{path}.{PresetName}", Shorten(named.GetRawText()), "must be a text: the name of a model preset"));
        }
        catch (ArgumentException e)
        {
            problems.Add(new Problem($"{path}.{PresetName}", Shorten(named.GetString()!), e.Message.Split(" (Parameter")[0]));
        }
        return start;
    }

    private static T BindObject<T>(T start, JsonElement json, string prefix, List<Problem> problems) where T : notnull
    {
        object result = Copy(start);
        PropertyInfo[] properties = [.. Writable(start.GetType())];
        foreach (JsonProperty given in json.EnumerateObject())
        {
            if (given.Name == PresetName && (start is RunConfig || start is ModelConfig)) continue;
            PropertyInfo? property = properties.FirstOrDefault(p => Plain(p.Name) == Plain(given.Name));
            if (property is null) problems.Add(Unknown(prefix + given.Name, given.Value.GetRawText(), properties.Select(p => prefix + SnakeCase(p.Name))));
            else BindProperty(result, property, given.Value, prefix + SnakeCase(property.Name), problems);
        }
        return (T)result;
    }

    private static void BindProperty(object target, PropertyInfo property, JsonElement value, string path, List<Problem> problems)
    {
        if (IsSection(property.PropertyType) && value.ValueKind == JsonValueKind.Object)
        {
            object section = property.GetValue(target)!;
            if (section is ModelConfig) section = StartOfModel((ModelConfig)section, value, path, problems);
            property.SetValue(target, BindObject(section, value, path + ".", problems));
            return;
        }
        object? read = null;
        bool right = property.PropertyType == typeof(IReadOnlyList<string>)
            ? value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(e => e.ValueKind == JsonValueKind.String)
            : value.ValueKind switch
            {
                JsonValueKind.String => (property.PropertyType == typeof(string) || property.PropertyType.IsEnum) && TryParse(property.PropertyType, value.GetString()!, out read),
                JsonValueKind.Number => property.PropertyType != typeof(string) && !property.PropertyType.IsEnum && TryParse(property.PropertyType, value.GetRawText(), out read),
                JsonValueKind.True or JsonValueKind.False => property.PropertyType == typeof(bool) && TryParse(property.PropertyType, value.GetRawText(), out read),
                _ => false,
            };
        if (right) property.SetValue(target, property.PropertyType == typeof(IReadOnlyList<string>) ? value.EnumerateArray().Select(e => e.GetString()!).ToArray() : read);
        else problems.Add(new Problem(path, Shorten(value.GetRawText()), $"must be {(IsSection(property.PropertyType) ? "an object" : Describe(property.PropertyType))}"));
    }

    private static RunConfig Wrong(RunConfig start, Setting setting, string text, List<Problem> problems)
    {
        string range = setting is { Minimum: { } least, Maximum: { } most } && setting.Type == typeof(double) ? string.Create(CultureInfo.InvariantCulture, $" from {least} to {most}") : "";
        problems.Add(new Problem(setting.Path, Shorten(text), $"must be {Describe(setting.Type)}{range}"));
        return start;
    }

    private static Problem Unknown(string name, string value, IEnumerable<string> known)
    {
        string[] names = [.. known];
        string? nearest = Nearest(name, names);
        return new Problem(name, Shorten(value), nearest is null ? $"there is no such setting; known here are {string.Join(", ", names)}" : $"there is no such setting; did you mean {nearest}?");
    }

    private static bool TryParse(Type type, string text, out object? value)
    {
        const NumberStyles Whole = NumberStyles.AllowLeadingSign;
        value = null;
        if (type == typeof(string)) value = text;
        else if (type == typeof(bool)) value = bool.TryParse(text, out bool b) ? b : null;
        else if (type == typeof(int)) value = int.TryParse(text, Whole, CultureInfo.InvariantCulture, out int i) ? i : null;
        else if (type == typeof(long)) value = long.TryParse(text, Whole, CultureInfo.InvariantCulture, out long l) ? l : null;
        else if (type == typeof(ulong)) value = ulong.TryParse(text, Whole, CultureInfo.InvariantCulture, out ulong u) ? u : null;
        else if (type == typeof(double)) value = TryNumber(text, out double d) ? d : null;
        else if (type.IsEnum) value = Enum.GetNames(type).Where(n => Plain(n) == Plain(text)).Select(n => Enum.Parse(type, n)).FirstOrDefault();
        return value is not null;
    }

    private static string Plain(string name) => name.Replace("_", "", StringComparison.Ordinal).Replace("-", "", StringComparison.Ordinal).ToLowerInvariant();

    private static string Shorten(string text) => text.Length <= 80 ? text : text[..77] + "...";

    // The bars of a special token (<|endoftext|>) belong to it.
    [GeneratedRegex(@"(?<!<)\|(?!>)")]
    private static partial Regex ListSeparator();
}
