using System.Globalization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model;

namespace NopeGpt.Benchmarks;

/// <summary>The options of the device checks, each --name VALUE.</summary>
internal sealed record DeviceOptions
{
    private static readonly IReadOnlyList<ModelPreset> _presets = [.. ModelPresets.All, new("12.6m", "The size of the CPU's benchmarks", Models.Nope)];

    private static readonly string[] Known = ["device", "devices", "preset", "precision", "sharding", "batch", "length", "steps", "elements", "libtorch", "weights", "batches", "json"];

    /// <summary>One replica for each: cpu, cuda, cuda:N. Repeat cpu for several on one machine.</summary>
    public string Devices { get; init; } = "cpu";

    public ModelPreset Preset { get; init; } = ModelPresets.Find("nope-gpt-tiny");

    public Precision Precision { get; init; } = Precision.Float32;

    /// <summary>0, 2 or 3; null: all of them, one after the other.</summary>
    public int? Sharding { get; init; }

    /// <summary>Rows of each replica.</summary>
    public int Rows { get; init; } = 4;

    public int Length { get; init; } = 64;

    public int Steps { get; init; } = 50;

    /// <summary>Of the largest buffer that the collectives are timed with.</summary>
    public int Elements { get; init; } = 1 << 20;

    /// <summary>Another libtorch's folder: that of PyTorch, for one.</summary>
    public string? LibTorch { get; init; }

    /// <summary>Where the model at the beginning is written, for the other program to begin with.</summary>
    public string? Weights { get; init; }

    /// <summary>Where the tokens are written that the steps read: int64, [steps, rows, length + 1].</summary>
    public string? Batches { get; init; }

    /// <summary>Where the figures are written for a program to read.</summary>
    public string? Json { get; init; }

    public int DeviceCount => Devices.Split(',').Length;

    /// <exception cref="ArgumentException">Everything that is wrong with them, a line each.</exception>
    public static DeviceOptions Read(IReadOnlyList<string> arguments)
    {
        Dictionary<string, string> given = [];
        List<string> problems = [];
        for (int i = 0; i < arguments.Count; i += 2)
        {
            string name = arguments[i].TrimStart('-');
            if (!arguments[i].StartsWith("--", StringComparison.Ordinal) || !Known.Contains(name)) problems.Add($"there is no option {arguments[i]}: known are {string.Join(", ", Known.Select(k => "--" + k))}");
            else if (i + 1 == arguments.Count) problems.Add($"{arguments[i]} needs a value");
            else given[name] = arguments[i + 1];
        }
        DeviceOptions usual = new();
        string? preset = given.GetValueOrDefault("preset");
        DeviceOptions options = new()
        {
            Devices = given.GetValueOrDefault("devices") ?? given.GetValueOrDefault("device") ?? usual.Devices,
            Preset = _presets.FirstOrDefault(p => p.Name == preset || p.Name == "nope-gpt-" + preset) ?? usual.Preset,
            Precision = PrecisionOf(given.GetValueOrDefault("precision") ?? "float32", problems),
            Sharding = given.ContainsKey("sharding") ? Whole("sharding", 0, 0, 3) : null,
            Rows = Whole("batch", usual.Rows, 1, 4096),
            Length = Whole("length", usual.Length, 1, 1 << 17),
            Steps = Whole("steps", usual.Steps, 1, 1_000_000),
            Elements = Whole("elements", usual.Elements, 1, 1 << 30),
            LibTorch = given.GetValueOrDefault("libtorch"), Weights = given.GetValueOrDefault("weights"), Batches = given.GetValueOrDefault("batches"), Json = given.GetValueOrDefault("json"),
        };
        if (preset is not null && options.Preset.Name != preset && options.Preset.Name != "nope-gpt-" + preset)
            problems.Add($"--preset = {preset}: choose one of {string.Join(", ", _presets.Select(p => p.Name))}");
        if (options.Sharding == 1) problems.Add("--sharding = 1: choose 0, 2 or 3");
        foreach (string device in options.Devices.Split(','))
            if (device is not ("cpu" or "cuda") && !(device.StartsWith("cuda:", StringComparison.Ordinal) && int.TryParse(device.AsSpan(5), NumberStyles.None, CultureInfo.InvariantCulture, out _)))
                problems.Add($"--devices = {device}: give cpu, cuda or cuda:N, several joined by commas");
        return problems.Count == 0 ? options : throw new ArgumentException(string.Join('\n', problems), nameof(arguments));

        int Whole(string name, int usual, int least, int most)
        {
            if (!given.TryGetValue(name, out string? text)) return usual;
            if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value) && value >= least && value <= most) return value;
            problems.Add($"--{name} = {text}: give a whole number from {least} to {most}");
            return usual;
        }
    }

    private static Precision PrecisionOf(string text, List<string> problems)
    {
        foreach (Precision precision in (Precision[])[Precision.Float32, Precision.Bfloat16, Precision.Float16])
            if (Settings.SnakeCase(precision.ToString()) == text) return precision;
        problems.Add($"--precision = {text}: choose float32, bfloat16 or float16");
        return Precision.Float32;
    }
}
