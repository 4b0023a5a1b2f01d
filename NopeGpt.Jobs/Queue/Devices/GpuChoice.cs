namespace NopeGpt.Jobs.Queue;

/// <summary>Which of this machine's GPUs a run gets now, or why none.</summary>
/// <param name="need">Bytes that it is estimated to need of each; null where that is not known, and then any free GPU will do.</param>
/// <param name="holders">The runs that have a GPU.</param>
/// <param name="kept">The runs that a free GPU is kept for.</param>
internal sealed class GpuChoice(RunRow run, GpuReading gpus, long? need, IReadOnlyDictionary<string, RunRow> holders, IReadOnlyDictionary<string, RunRow> kept)
{
    private readonly bool several = run.Kind.Trains();

    private string Names => Words.List(Enumerable.Range(0, gpus.Gpus.Count).Select(DeviceRequest.Gpu));

    private string Unknown => gpus.Problem is { } problem ? $" ({problem})" : "";

    /// <summary>These, by their numbers.</summary>
    public DeviceAnswer Named(IReadOnlyList<int> numbers)
    {
        int[] missing = [.. numbers.Where(n => n >= gpus.Gpus.Count)];
        if (missing.Length > 0) return DeviceAnswer.Waits($"{Words.List(missing.Select(DeviceRequest.Gpu))} {(missing.Length == 1 ? "is" : "are")} not there: this machine has {(gpus.Gpus.Count == 0 ? "no GPU" + Unknown : Names)}");
        if (numbers.Where(n => Never(n)).ToArray() is [var small, ..]) return DeviceAnswer.Waits(DevicePool.Never(DeviceRequest.Gpu(small), need!.Value, gpus.Gpus[small].TotalBytes!.Value, several));
        string[] busy = [.. numbers.Select(n => Why(n, whole: true)).OfType<string>()];
        if (busy.Length > 0) return DeviceAnswer.Waits(Words.List(busy), Keep(numbers, numbers.Count));
        return DeviceAnswer.Gets([.. numbers.Select(DeviceRequest.Gpu)]);
    }

    /// <summary>So many, those with the lowest numbers.</summary>
    public DeviceAnswer Any(int count)
    {
        int[] all = [.. Enumerable.Range(0, gpus.Gpus.Count)], large = [.. all.Where(n => !Never(n))];
        if (all.Length < count) return DeviceAnswer.Waits($"{(count == 1 ? "a GPU is needed" : $"{count} GPUs are needed")} and this machine has {(all.Length == 0 ? "none" + Unknown : $"{all.Length} ({Names})")}");
        if (large.Length < count)
        {
            int small = all.Except(large).MaxBy(n => gpus.Gpus[n].TotalBytes);
            return DeviceAnswer.Waits(DevicePool.Never(DeviceRequest.Gpu(small), need!.Value, gpus.Gpus[small].TotalBytes!.Value, several));
        }
        int[] free = [.. large.Where(n => Why(n, whole: false) is null)];
        if (free.Length >= count) return DeviceAnswer.Gets([.. free.Take(count).Select(DeviceRequest.Gpu)]);
        if (all.Length == 1) return DeviceAnswer.Waits(Why(0, whole: true)!);
        string why = string.Join(", ", all.Except(free).Select(n => Never(n) ? $"{DeviceRequest.Gpu(n)} is too small" : Why(n, whole: false)));
        return DeviceAnswer.Waits($"{(count == 1 ? "a free GPU is" : $"{count} free GPUs are")} needed and {(free.Length == 0 ? "none is" : free.Length == 1 ? "1 is" : $"{free.Length} are")} free ({why})",
            Keep(large, count));
    }

    private bool Never(int number) => need > gpus.Gpus[number].TotalBytes;

    // Only what runs of ours have comes free for sure: a GPU whose memory another program has is not waited for with others standing still.
    private string[] Keep(IReadOnlyList<int> wanted, int count)
    {
        int[] coming = [.. wanted.Where(Room)];
        return count > 1 && coming.Length >= count ? [.. coming.Where(n => Why(n, whole: false) is null).Take(count).Select(DeviceRequest.Gpu)] : [];
    }

    private bool Room(int number) => holders.ContainsKey(DeviceRequest.Gpu(number)) || need is null || gpus.Gpus[number].FreeBytes is not { } free || free >= need;

    /// <summary>Why it is not free, null where it is.</summary>
    /// <param name="whole">With how far the other run is.</param>
    private string? Why(int number, bool whole)
    {
        string name = DeviceRequest.Gpu(number);
        if (holders.TryGetValue(name, out RunRow? holder)) return $"{name} is busy with run {(whole ? Words.Progress(holder) : holder.Title)}";
        if (kept.TryGetValue(name, out RunRow? before) && before.Id != run.Id) return $"{name} is kept for run {before.Title}, which comes before it";
        return need is { } bytes && gpus.Gpus[number].FreeBytes is { } free && free < bytes ? $"{name} has {Words.Gigabytes(free, bytes)} free that it needs" : null;
    }
}
