using System.Text.Json;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>What an export run says of its folder, in export.json: where the model came from.</summary>
/// <param name="Checkpoint">The folder or file of the model.</param>
/// <param name="Adapter">The folder of the adapter that is in its weights; empty for none.</param>
internal sealed record ExportInfo(string RunId, DateTimeOffset Made, string Checkpoint, string Adapter, double Strength, string Layout, ExportType Dtype)
{
    public const string FileName = "export.json";
}

/// <summary>Writes a model in the layout of another program. The folder appears whole or not at all; stopped or killed, the run begins anew.</summary>
internal sealed class ExportRun(RunContext run, string? torchLibrary)
{
    // Shares of the work that are done before the weights are read, and before they are written.
    private const double Found = 0.05, Loaded = 0.5;

    private ExportConfig Recipe => run.Config.Export;

    /// <summary>The run that made a folder; null where none did.</summary>
    public static string? MadeBy(string folder)
    {
        try { return JsonSerializer.Deserialize<ExportInfo>(File.ReadAllText(Path.Combine(folder, ExportInfo.FileName)), Settings.Json)?.RunId; }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException or ArgumentException) { return null; }
    }

    public void Run()
    {
        IReadOnlyList<Problem> problems = RunConfigChecks.All(run.Config, run.Store, run.Folder.Id);
        if (problems.Count > 0) throw new ProblemsException(problems);
        run.Events.Write(new StartedEvent(run.Events.Attempts + 1, 0, Environment.ProcessId, $"cpu, {Environment.ProcessorCount} cores"));
        string target = Path.GetFullPath(run.Store.ExportFolder(run.Config, run.Folder.Id)!);
        // Killed after its last step it has made its folder already.
        if (MadeBy(target) == run.Folder.Id) run.Log($"{target} is there already");
        else Export(target);
        run.Events.Write(new ProgressEvent("the export is ready", 1));
        run.Log($"export: {target}");
    }

    private void Export(string target)
    {
        Report("finding the model", 0);
        string folder = BaseCheckpoint.Find(Recipe.Checkpoint, run.Store, run.Warn);
        string? adapter = Recipe.Adapter.Length == 0 ? null : BaseCheckpoint.Find(Recipe.Adapter, run.Store, run.Warn);
        Report(adapter is null && !CheckpointModel.IsAdapter(folder) ? "loading the model" : "loading the model and merging its adapter", Found);
        run.Log($"exporting {folder}{(adapter is null ? "" : $" with {adapter}")} in the layout {Recipe.Layout}");
        ComputeDevice.Start(torchLibrary, "cpu", run.Config.Threads);
        using ModelExport export = ModelExport.Open(folder, adapter, Recipe.Strength, run.Store.TokenizerPlaces);
        Report("writing the files", Loaded);
        ExportInfo info = new(run.Folder.Id, run.Time.GetUtcNow(), folder, adapter ?? (CheckpointModel.IsAdapter(folder) ? folder : ""), Recipe.Strength, Recipe.Layout, Recipe.Dtype);
        Model.Storage.Checkpoint.CleanTemporaryOf(target);
        export.Write(Recipe.Layout, target, Type(), Recipe.MaxShardSize == 0 ? null : Recipe.MaxShardSize * 1_000_000L, run.Warn, aside =>
            File.WriteAllText(Path.Combine(aside, ExportInfo.FileName), JsonSerializer.Serialize(info, Settings.Json) + "\n"));
        long bytes = Directory.EnumerateFiles(target).Sum(file => new FileInfo(file).Length);
        run.Log($"{export.Model.CountParameters()} parameters, {bytes} bytes");
        run.Events.Write(new MetricsEvent(0, 0, 0, null, new Dictionary<string, double> { ["export/parameters"] = export.Model.CountParameters(), ["export/bytes"] = bytes }));
    }

    private ScalarType Type() => Recipe.Dtype switch { ExportType.Bfloat16 => ScalarType.BFloat16, ExportType.Float16 => ScalarType.Float16, _ => ScalarType.Float32 };

    private void Report(string stage, double fraction)
    {
        if (run.Stop.Token.IsCancellationRequested) throw new StoppedException("stopped; the export begins anew when resumed");
        run.Events.Write(new ProgressEvent(stage, fraction));
    }
}
