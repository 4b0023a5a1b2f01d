using System.Globalization;

namespace NopeGpt.Jobs.Queue.Hosts;

/// <summary>This process as the table knows it.</summary>
internal sealed class ThisHost(QueueOptions options)
{
    private readonly TrainerIdentity self = TrainerProcess.Self();

    /// <summary>See <see cref="QueueHostName"/>.</summary>
    public string Name => options.Host;

    /// <summary>Who holds the leases that are taken here: host, process and its start.</summary>
    public string Owner => string.Create(CultureInfo.InvariantCulture, $"{Name}/{self.ProcessId}/{self.StartTicks}");

    /// <summary>True for a run that is this host's: it was claimed or is looked after here. Without a shared table every run is.</summary>
    public bool Has(RunRow row) => !options.IsShared || row.Host == Name;

    /// <summary>Hangfire's queue for a slot of this host. In a storage that hosts share the name tells them apart.</summary>
    public string QueueOf(string slot) => options.IsShared ? $"{Name}-{slot}" : slot;
}
