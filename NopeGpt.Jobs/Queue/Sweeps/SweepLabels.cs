using System.Globalization;
using NopeGpt.Jobs.Commands;

namespace NopeGpt.Jobs.Queue;

/// <summary>Short words for what differs between the runs of a sweep.</summary>
internal static class SweepLabels
{
    private const int LongestName = 80, LongestValue = 30, FewestDigits = 3, MostDigits = 17;

    private static readonly Dictionary<string, string> Short = new(StringComparer.Ordinal)
    {
        ["learning_rate"] = "lr", ["batch_size"] = "batch", ["max_steps"] = "steps", ["gradient_accumulation_steps"] = "accumulation", ["embedding_dimensions"] = "width",
        ["num_decoder_layers"] = "layers", ["num_q_heads"] = "heads", ["num_kv_heads"] = "kv heads", ["tokens_per_sample"] = "context", ["warmup_steps"] = "warmup", ["max_gradient_norm"] = "clip",
        ["base_checkpoint_path"] = "base", ["dataset_subsets"] = "data", ["lora_rank"] = "rank", ["lora_alpha"] = "alpha", ["num_epochs"] = "epochs",
    };

    /// <summary>The setting's name that a label stands for: learning_rate for lr; null for none.</summary>
    public static string? NameOf(string label) => Short.FirstOrDefault(s => s.Value == label).Key;

    /// <summary>For each value: lr 3e-4. Empty texts for an axis of one value, which does not differ.</summary>
    public static IReadOnlyList<string> Of(AxisValues axis, IReadOnlyList<AxisValues> all)
    {
        if (axis.Values.Count == 1 && all.Any(a => a.Values.Count > 1)) return [""];
        IReadOnlyList<string> values = Values(axis);
        if (axis.Setting.Path == "name") return values;
        string label = Label(axis);
        if (all.Any(a => a != axis && Label(a) == label)) label = axis.Setting.Path;
        return [.. values.Select(v => $"{label} {v}")];
    }

    /// <summary>Names that fit a run and differ: one that is too long, or there twice, ends with its number.</summary>
    public static IReadOnlyList<string> Unique(IReadOnlyList<string> names)
    {
        HashSet<string> twice = [.. names.GroupBy(n => Fit(n, ""), StringComparer.Ordinal).Where(g => g.Count() > 1).Select(g => g.Key)];
        return [.. names.Select((n, i) => n.Length <= LongestName && !twice.Contains(n) ? n : Fit(n, string.Create(CultureInfo.InvariantCulture, $" #{i + 1}")))];
    }

    /// <summary>The shorter one of 0.0003 and 3e-4, with at most so many digits.</summary>
    public static string Number(double value, int digits)
    {
        string scientific = value.ToString("0." + new string('#', digits - 1) + "e+0", CultureInfo.InvariantCulture).Replace("e+", "e", StringComparison.Ordinal);
        double rounded = double.Parse(scientific, CultureInfo.InvariantCulture);
        if (value != 0 && Math.Abs(value) is < 1e-6 or >= 1e6) return scientific;
        string plain = ((decimal)rounded).ToString("0.#######################", CultureInfo.InvariantCulture);
        return Math.Abs(value) >= 1 || plain.Length <= scientific.Length ? plain : scientific;
    }

    private static string Label(AxisValues axis) => Short.TryGetValue(axis.Setting.Name, out string? label) ? label : axis.Setting.Name.Replace('_', ' ');

    private static string[] Values(AxisValues axis)
    {
        if (axis.Setting.Type == typeof(double))
        {
            for (int digits = FewestDigits; ; digits++)
            {
                string[] texts = [.. axis.Values.Select(v => Number((double)v!, digits))];
                if (digits == MostDigits || texts.Distinct(StringComparer.Ordinal).Count() == texts.Length) return texts;
            }
        }
        string[] names = [.. axis.Values.Select(v => v is string path && path.Contains('/', StringComparison.Ordinal) ? Path.GetFileName(path.TrimEnd('/')) : RunOptions.Words(v)).Select(Readable)];
        return names.Distinct(StringComparer.Ordinal).Count() == names.Length ? names : [.. axis.Values.Select(v => Readable(RunOptions.Words(v)))];
    }

    private static string Readable(string text)
    {
        string line = new([.. text.Select(c => char.IsControl(c) ? ' ' : c)]);
        return line.Trim().Length == 0 ? "none" : line.Length <= LongestValue ? line : line[..(LongestValue - 1)] + "…";
    }

    private static string Fit(string name, string end)
    {
        if (name.Length + end.Length <= LongestName) return name + end;
        int length = LongestName - end.Length - 1;
        // Half a character is none.
        if (char.IsHighSurrogate(name[length - 1])) length--;
        return name[..length] + "…" + end;
    }
}
