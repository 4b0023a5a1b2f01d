using System.Globalization;
using NopeGpt.Jobs.Queue.Hosts;

namespace NopeGpt.Jobs.Queue;

/// <summary>The devices of this machine: what there is, who has it, and what a run can have now. A device is free when no run of ours has it and its free memory
/// holds what the run is estimated to need. Beside them is the place for preparation, so that the next data set is made while a model trains.</summary>
public sealed class DevicePool
{
    internal const string Cpu = "cpu", Preparation = "preparation";
    private static readonly TimeSpan UnknownFor = TimeSpan.FromSeconds(30);
    private readonly GpuProbe probe;
    private readonly HostFiles files;
    private readonly DeviceOptions options;
    private readonly ThisHost host;
    private readonly Store store;
    private readonly TimeProvider time;
    private readonly Lock gate = new();
    private readonly Dictionary<(string Run, bool Cpu), (long? Bytes, long Since)> needs = [];
    private readonly Dictionary<string, DeviceSlot> slots = [];
    private bool sawGpus;

    internal DevicePool(GpuProbe probe, HostFiles files, DeviceOptions options, ThisHost host, Store store, TimeProvider time)
    {
        (this.probe, this.files, this.options, this.host, this.store, this.time) = (probe, files, options, host, store, time);
        Slot(Preparation);
        Slot(Cpu);
    }

    /// <summary>A slot has come up that needs a server.</summary>
    internal event Action<DeviceSlot>? SlotAdded;

    /// <summary>The name of the host whose devices these are.</summary>
    public string Host => host.Name;

    /// <summary>The slots so far: one for each device that a run was given, for the CPU and for preparation.</summary>
    internal IReadOnlyList<DeviceSlot> Slots
    {
        get { lock (gate) return [.. slots.Values]; }
    }

    /// <summary>The devices as they are now, the CPU last. It may wait for nvidia-smi: not for a thread that must go on.</summary>
    public IReadOnlyList<DeviceView> List()
    {
        IEnumerable<DeviceView> gpus = Gpus().Gpus.Select((g, i) => new DeviceView(DeviceRequest.Gpu(i), "cuda", g.Name, g.TotalBytes, g.FreeBytes, g.Utilization, g.Temperature, g.PowerWatts));
        (long Total, long Free)? memory = files.Memory();
        return [.. gpus, new DeviceView(Cpu, "cpu", files.CpuName, memory?.Total, memory?.Free, files.Load(), null, null)];
    }

    /// <summary>The devices of this machine that a run has: what it was given, and of one that a person started on a terminal, what it takes by itself. None for a run
    /// that does not work, works on another machine, or prepares.</summary>
    public IReadOnlyList<string> DevicesOf(RunRow row)
    {
        ArgumentNullException.ThrowIfNull(row);
        if (!RunStates.Working.Contains(row.State) || IsPreparation(row.Kind) || !host.Has(row)) return [];
        if (row.Devices.Length > 0) return [.. row.DeviceList.Distinct()];
        int gpus = DeviceRequest.Parse(row.Device) is { Wish: DeviceWish.Auto } ? Gpus().Gpus.Count : 0;
        return DeviceRequest.Parse(row.Device) switch
        {
            { Wish: DeviceWish.NamedGpus } named => [.. named.Gpus.Select(DeviceRequest.Gpu)],
            { Wish: DeviceWish.AnyGpus } any => [.. Enumerable.Range(0, any.Count).Select(DeviceRequest.Gpu)],
            { Wish: DeviceWish.Auto } when gpus > 0 => [DeviceRequest.Gpu(0)],
            _ => [Cpu],
        };
    }

    /// <summary>What a run would get now.</summary>
    /// <param name="working">The runs that have been given devices and not ended, of all machines.</param>
    /// <param name="kept">Devices that runs before this one keep, see <see cref="DeviceAnswer.Kept"/>.</param>
    internal DeviceAnswer Find(RunRow row, IReadOnlyList<RunRow> working, IReadOnlyDictionary<string, RunRow>? kept = null)
    {
        if (IsPreparation(row.Kind)) return FindPlace(working);
        if (DeviceRequest.Parse(row.Device) is not { } request) return DeviceAnswer.Waits($"device {row.Device} {DeviceRequest.Fault(row.Device)}");
        if (request.Wish == DeviceWish.Mixed) return DeviceAnswer.Waits($"device {row.Device} mixes CPU and GPUs: it needs devices of one kind");
        if (request.Wish == DeviceWish.Cpu) return FindCpu(row, request.Count, working);
        GpuReading gpus = Gpus();
        // A run for which any device will do does not go to the CPU because nvidia-smi is slow once.
        if (gpus.Problem is { } problem && sawGpus) return DeviceAnswer.Waits($"this machine's GPUs are not known now ({problem})");
        if (request.Wish == DeviceWish.Auto && gpus.Gpus.Count == 0) return FindCpu(row, 1, working);
        GpuChoice choice = new(row, gpus, Need(row, cpu: false), Holders(working), kept ?? new Dictionary<string, RunRow>());
        DeviceAnswer answer = request.Wish == DeviceWish.NamedGpus ? choice.Named(request.Gpus) : choice.Any(request.Count);
        foreach (string device in answer.Devices) Slot(device);
        return answer;
    }

    /// <summary>The queue of a run's first device.</summary>
    internal DeviceSlot For(RunRow row) => Slot(IsPreparation(row.Kind) ? Preparation : row.Devices.Length > 0 ? row.DeviceList[0] : DevicesOf(row) is [var first, ..] ? first : Cpu);

    /// <summary>What a trainer is told beside its folder: the devices that its run was given, and threads where the run leaves them open.</summary>
    internal IReadOnlyList<string> TrainerOptions(RunRow row)
    {
        if (IsPreparation(row.Kind)) return [];
        List<string> words = row.Devices.Length > 0 ? ["--device", row.Devices] : [];
        if (options.CpuThreads > 0 && Config(row) is not { Threads: > 0 }) words.AddRange(["--threads", options.CpuThreads.ToString(CultureInfo.InvariantCulture)]);
        return words;
    }

    private static bool IsPreparation(RunKind kind) => !kind.NeedsDevice();

    private DeviceAnswer FindPlace(IReadOnlyList<RunRow> working)
    {
        RunRow[] busy = [.. working.Where(r => IsPreparation(r.Kind) && host.Has(r))];
        if (busy.Length < options.PreparationSlots) return DeviceAnswer.Gets(Preparation);
        return DeviceAnswer.Waits(busy.Length == 1 ? $"the place for preparation is busy with run {Words.Progress(busy[0])}" : $"the {busy.Length} places for preparation are busy with {Words.List(busy.Select(r => "run " + Words.Progress(r)))}");
    }

    private DeviceAnswer FindCpu(RunRow row, int replicas, IReadOnlyList<RunRow> working)
    {
        if (options.CpuSlots == 0) return DeviceAnswer.Waits("the CPU of this machine takes no runs (Jobs:CpuSlots = 0)");
        RunRow[] busy = [.. working.Where(r => DevicesOf(r).Contains(Cpu))];
        if (busy.Length >= options.CpuSlots)
            return DeviceAnswer.Waits(busy.Length == 1 ? $"the CPU is busy with run {Words.Progress(busy[0])}" : $"the CPU's {options.CpuSlots} slots are busy with {Words.List(busy.Select(r => "run " + Words.Progress(r)))}");
        if (Need(row, cpu: true) is not { } need || files.Memory() is not var (total, free)) return Free();
        if (need > total) return DeviceAnswer.Waits(Never("the CPU", need, total, several: false));
        // What runs that have just begun will still take is not free.
        foreach (RunRow other in busy) free -= Math.Max(0, (Need(other, cpu: true) ?? 0) - (other.ProcessId is { } id ? files.ResidentBytes(id) : 0));
        return free < need ? DeviceAnswer.Waits($"the CPU has {Words.Gigabytes(Math.Max(0, free), need)} free that it needs") : Free();

        DeviceAnswer Free() => DeviceAnswer.Gets([.. Enumerable.Repeat(Cpu, replicas)]);
    }

    /// <summary>Why a run will never find room, and what to change.</summary>
    internal static string Never(string device, long need, long total, bool several) =>
        $"it needs {Words.Gigabytes(need)} of memory and {device} has {Words.Gigabytes(total)} in all, so that it will never fit: use a smaller training.batch_size, training.activation_checkpointing"
        + (several ? ", or more devices with training.sharding_level 2 or 3" : ", or a smaller model");

    private Dictionary<string, RunRow> Holders(IReadOnlyList<RunRow> working)
    {
        Dictionary<string, RunRow> holders = [];
        foreach (RunRow row in working)
            foreach (string device in DevicesOf(row)) holders.TryAdd(device, row);
        return holders;
    }

    private GpuReading Gpus()
    {
        GpuReading reading = probe.Read();
        if (reading.Gpus.Count > 0) sawGpus = true;
        return reading;
    }

    /// <summary>Bytes that the run is estimated to need, or null. What was not known is asked again after a while: what the run reads may have come.</summary>
    private long? Need(RunRow row, bool cpu)
    {
        lock (gate)
        {
            if (needs.TryGetValue((row.Id, cpu), out (long? Bytes, long Since) known) && (known.Bytes is not null || time.GetElapsedTime(known.Since) < UnknownFor)) return known.Bytes;
        }
        long? bytes = Config(row) is { } config ? RunMemory.Of(config, row.Predecessors, store, cpu) : null;
        lock (gate) needs[(row.Id, cpu)] = (bytes, time.GetTimestamp());
        return bytes;
    }

    private RunConfig? Config(RunRow row)
    {
        try { return RunFolder.TryOpen(store, row.Id, out RunFolder? folder) ? folder.Read().Config : null; }
        catch (Exception e) when (e is UserException or IOException or UnauthorizedAccessException) { return null; }
    }

    private DeviceSlot Slot(string device)
    {
        DeviceSlot slot;
        lock (gate)
        {
            if (slots.TryGetValue(device, out DeviceSlot? known)) return known;
            slots[device] = slot = new(QueueName(device), Math.Max(1, device switch { Cpu => options.CpuSlots, Preparation => options.PreparationSlots, _ => 1 }));
        }
        SlotAdded?.Invoke(slot);
        return slot;
    }

    private string QueueName(string device) => host.QueueOf(device.Replace(":", "", StringComparison.Ordinal));
}
