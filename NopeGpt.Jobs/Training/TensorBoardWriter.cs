using System.Globalization;

namespace NopeGpt.Jobs.Training;

/// <summary>A run's numbers as TensorBoard reads them: runs/ID/tensorboard, one file for each attempt. Loss, gradient norm and perplexity have the names
/// of the reference (Cross Entropy, Gradient Norm, Perplexity), all others ours. It is a view of the events: what fails here is said once and hurts nothing.</summary>
/// <param name="log">Told why nothing more is written.</param>
internal sealed class TensorBoardWriter(RunFolder folder, Action<string> log) : IDisposable
{
    /// <summary>TensorBoard takes a folder's files in the order of their names, and only those with this in them.</summary>
    private const string Prefix = "events.out.tfevents.";

    private static readonly Dictionary<string, string> ReferenceNames = new(StringComparer.Ordinal)
    {
        ["train/loss"] = "Cross Entropy", ["train/gradient_norm"] = "Gradient Norm", ["eval/perplexity"] = "Perplexity",
    };

    private readonly EventRecords _records = new();
    private FileStream? _file;
    private StartedEvent? _started;
    private bool _failed;

    /// <summary>Writes what a batch of events has for TensorBoard; it is on its way to the disk when this returns.</summary>
    public void Write(IEnumerable<TrainingEvent> batch)
    {
        if (_failed) return;
        try
        {
            foreach (TrainingEvent happened in batch) Take(happened);
            if (_file is null) return;
            _file.Write(_records.Bytes.Span);
            _records.Clear();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            _failed = true;
            log($"warning: the files for TensorBoard in {folder.TensorBoardPath} cannot be written ({e.Message.TrimEnd('.')}): the run goes on without them");
        }
    }

    public void Dispose() => _file?.Dispose();

    private void Take(TrainingEvent happened)
    {
        if (happened is StartedEvent started) _started = started;
        if (happened is not MetricsEvent metrics || metrics.Values.Count == 0) return;
        Open(metrics.Time);
        IEnumerable<KeyValuePair<string, double>> values = metrics.Values;
        // A stop during the samples of an evaluation has it done again at the resume; the numbers stand in the file before.
        if (_started is { FromStep: > 0 } resumed && metrics.Step <= resumed.FromStep) values = values.ExceptBy(Written(metrics.Step, resumed), v => v.Key).ToList();
        if (values.Any()) _records.Scalars(metrics.Time, metrics.Step, values.Select(v => (ReferenceNames.GetValueOrDefault(v.Key, v.Key), v.Value)));
    }

    private void Open(DateTimeOffset now)
    {
        if (_file is not null) return;
        Directory.CreateDirectory(folder.TensorBoardPath);
        // Never before an earlier attempt's, whatever the clock says.
        long seconds = Directory.EnumerateFiles(folder.TensorBoardPath, Prefix + "*").Select(Seconds).Append(now.ToUnixTimeSeconds() - 1).Max() + 1;
        string name = string.Create(CultureInfo.InvariantCulture, $"{Prefix}{seconds:D10}.{Environment.MachineName}.{Environment.ProcessId}.{_started?.Attempt ?? 1}");
        // Without a buffer: what failed once would be written again on closing, and throw there.
        _file = new FileStream(Path.Combine(folder.TensorBoardPath, name), FileMode.CreateNew, FileAccess.Write, FileShare.ReadWrite | FileShare.Delete, bufferSize: 0);
        _records.Version(now);
        if (_started is { Attempt: > 1 } resumed) _records.Purge(now, resumed.FromStep + 1);
    }

    private static long Seconds(string path) =>
        long.TryParse(Path.GetFileName(path).AsSpan(Prefix.Length).ToString().Split('.')[0], NumberStyles.None, CultureInfo.InvariantCulture, out long seconds) ? seconds : 0;

    /// <summary>Names of the values that earlier attempts wrote for a step, and that no resume since has purged.</summary>
    private HashSet<string> Written(long step, StartedEvent before)
    {
        HashSet<string> names = new(StringComparer.Ordinal);
        foreach (TrainingEvent earlier in folder.Events().TakeWhile(e => e.Sequence < before.Sequence))
        {
            if (earlier is StartedEvent started && started.FromStep < step) names.Clear();
            if (earlier is MetricsEvent metrics && metrics.Step == step) names.UnionWith(metrics.Values.Keys);
        }
        return names;
    }
}
