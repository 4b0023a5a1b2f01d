using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Live;

/// <summary>A device with the runs that have it. The names in JSON are a contract; null is what is not known.</summary>
/// <param name="Id">As a run's `device` names it: cpu, cuda:0 ...</param>
/// <param name="Kind">cpu or cuda.</param>
/// <param name="Utilization">Percent, 0 to 100.</param>
/// <param name="Temperature">Degrees Celsius.</param>
internal sealed record DeviceUse(
    string Id, string Name, string Kind, long? TotalBytes, long? FreeBytes, double? Utilization, double? Temperature, double? PowerWatts, IReadOnlyList<DeviceRun> Runs);

/// <param name="State">As <see cref="RunState"/> writes it: Running.</param>
internal sealed record DeviceRun(string Id, string Name, string State);

/// <summary>What this machine's devices do now.</summary>
internal sealed class DeviceBoard(DevicePool pool, RunQueue queue)
{
    /// <summary>The name of the host whose devices these are.</summary>
    public string Host => pool.Host;

    /// <summary>Off the caller's thread: asking for GPUs starts a program, which may take its time.</summary>
    public async Task<IReadOnlyList<DeviceUse>> ReadAsync(CancellationToken cancel)
    {
        IReadOnlyList<RunRow> rows = await queue.ListAsync(cancel: cancel);
        return await Task.Run<IReadOnlyList<DeviceUse>>(() =>
        {
            (RunRow Row, IReadOnlyList<string> Devices)[] holders = [.. rows.Select(r => (r, pool.DevicesOf(r))).Where(h => h.Item2.Count > 0)];
            return [.. pool.List().Select(d => new DeviceUse(d.Id, d.Name, d.Kind, d.TotalBytes, d.FreeBytes, d.Utilization, d.Temperature, d.PowerWatts,
                [.. holders.Where(h => h.Devices.Contains(d.Id)).Select(h => new DeviceRun(h.Row.Id, h.Row.Title, h.Row.State.ToString()))]))];
        }, cancel);
    }
}
