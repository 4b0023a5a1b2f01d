using System.Globalization;

namespace NopeGpt.Jobs.Queue;

/// <summary>A GPU as nvidia-smi tells of it; null is what it does not tell.</summary>
/// <param name="FreeBytes">Of <paramref name="TotalBytes"/>, at the time of asking.</param>
/// <param name="Utilization">Percent of the time in which it computed.</param>
/// <param name="Temperature">Degrees Celsius.</param>
internal sealed record Gpu(int Index, string Uuid, string Name, long? TotalBytes, long? FreeBytes, double? Utilization, double? Temperature, double? PowerWatts);

/// <summary>Reads nvidia-smi's table, and finds out which of the GPUs a process sees.</summary>
internal static class GpuList
{
    /// <summary>What nvidia-smi is asked for, in this order.</summary>
    public const string Fields = "index,uuid,name,memory.total,memory.free,utilization.gpu,temperature.gpu,power.draw";

    private const int Columns = 8, LongestName = 80, MostGpus = 1000;
    private const double Mebibyte = 1 << 20, MostMebibytes = 1 << 30;

    /// <summary>The lines that are GPUs, by index. Anything else in the text is passed over.</summary>
    public static IReadOnlyList<Gpu> Parse(string text)
    {
        SortedDictionary<int, Gpu> gpus = [];
        foreach (string line in text.Split('\n'))
            if (Line(line) is { } gpu) gpus.TryAdd(gpu.Index, gpu);
        return [.. gpus.Values];
    }

    private static Gpu? Line(string line)
    {
        string[] cells = line.Split(',', StringSplitOptions.TrimEntries);
        if (cells.Length < Columns || cells[1].Length == 0 || !int.TryParse(cells[0], NumberStyles.None, CultureInfo.InvariantCulture, out int index) || index >= MostGpus) return null;
        // A name may have commas; what is behind it may not.
        string[] behind = cells[^5..];
        string name = new([.. string.Join(", ", cells[2..^5]).Where(c => !char.IsControl(c)).Take(LongestName)]);
        long? total = Number(behind[0], 1, MostMebibytes) is { } all ? (long)(all * Mebibyte) : null;
        long? free = Number(behind[1], 0, MostMebibytes) is { } left ? (long)(left * Mebibyte) : null;
        return new Gpu(index, cells[1], name, total, free > total ? total : free, Number(behind[2], 0, 100), Number(behind[3], -273, 1000), Number(behind[4], 0, 100_000));
    }

    // What it does not know is [N/A], [Not Supported], [Unknown Error] ...
    private static double? Number(string text, double least, double most) =>
        double.TryParse(text, NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double value) && value >= least && value <= most ? value : null;

    /// <summary>The GPUs that CUDA shows a process, in its order: the first is cuda:0.</summary>
    /// <param name="visible">CUDA_VISIBLE_DEVICES; null shows all. Numbers, or beginnings of UUIDs; what follows one that is not there is not seen, and none where one
    /// is named twice. CUDA shows a process at most one part of a GPU (MIG).</param>
    public static IReadOnlyList<Gpu> Visible(IReadOnlyList<Gpu> all, string? visible)
    {
        if (visible is null) return all;
        List<Gpu> seen = [];
        foreach (string entry in visible.Split(',', StringSplitOptions.TrimEntries))
        {
            if (entry.StartsWith("MIG-", StringComparison.OrdinalIgnoreCase))
            {
                if (seen.Count == 0) seen.Add(Part(all, entry));
                break;
            }
            Gpu[] named = int.TryParse(entry, NumberStyles.None, CultureInfo.InvariantCulture, out int index)
                ? [.. all.Where(g => g.Index == index)]
                : entry.Length > "GPU-".Length ? [.. all.Where(g => g.Uuid.StartsWith(entry, StringComparison.OrdinalIgnoreCase))] : [];
            if (named.Length != 1) break;
            if (seen.Contains(named[0])) return [];
            seen.Add(named[0]);
        }
        return seen;
    }

    // The older form names the whole: MIG-GPU-8932f937-d72c-4106-c12f-20bd9faed9f6/1/0. What the part's memory is nvidia-smi's table does not tell.
    private static Gpu Part(IReadOnlyList<Gpu> all, string entry)
    {
        string whole = entry["MIG-".Length..].Split('/')[0];
        Gpu? parent = all.FirstOrDefault(g => g.Uuid.Equals(whole, StringComparison.OrdinalIgnoreCase)) ?? (all.Count == 1 ? all[0] : null);
        return new Gpu(parent?.Index ?? 0, entry, parent is null ? "part of a GPU (MIG)" : $"part of {parent.Name} (MIG)", null, null, null, parent?.Temperature, null);
    }
}
