using NopeGpt.Jobs.Commands;
using NopeGpt.Jobs.Inference;
using NopeGpt.Jobs.Training;
using NopeGpt.Model;
using NopeGpt.Model.Storage.Layouts;

namespace NopeGpt.Jobs;

// What can be wrong with an export.
public static partial class RunConfigChecks
{
    private const string ExportedField = "export.checkpoint", LayoutField = "export.layout", AdapterField = "export.adapter", TargetField = "export.out";

    private static void Exporting(ExportConfig export, List<Problem> problems)
    {
        if (export.Checkpoint.Length == 0) problems.Add(new Problem(ExportedField, "", "name the model to write: a run's id, RUN_ID/STEP, a checkpoint folder or that of an imported model"));
        if (!HubLayout.Names.Contains(export.Layout)) problems.Add(new Problem(LayoutField, Short(export.Layout), $"there is no such layout: choose {string.Join(", ", HubLayout.Names)}"));
    }

    /// <param name="run">The run that the config belongs to; null where it is not made yet.</param>
    private static void ExportFits(RunConfig config, Store store, string? run, List<Problem> problems)
    {
        TargetIsFree(config, store, run, problems);
        ExportConfig export = config.Export;
        if (export.Adapter.Length > 0) AdapterIsThere(export.Adapter, store, problems);
        if (export.Checkpoint.Length == 0) return;
        try
        {
            string folder = BaseCheckpoint.Find(export.Checkpoint, store, warn: null);
            bool isAdapter = CheckpointModel.IsAdapter(folder);
            if (isAdapter && export.Adapter.Length > 0)
                problems.Add(new Problem(AdapterField, Short(export.Adapter), $"cannot be added to {export.Checkpoint}, which is an adapter itself: name its base {CheckpointModel.Weights(folder)} as export.checkpoint, or leave this empty"));
            if (!isAdapter && export.Adapter.Length == 0 && export.Strength != 1) NoAdapter(export, problems);
            LayoutFits(export.Layout, HubLayout.Recognise(CheckpointModel.Weights(folder)).Config, problems);
        }
        catch (UserException e) { problems.Add(new Problem(ExportedField, Short(export.Checkpoint), e.Message)); }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or NotSupportedException or UnauthorizedAccessException) { problems.Add(new Problem(ExportedField, Short(export.Checkpoint), e.Message)); }
    }

    private static void NoAdapter(ExportConfig export, List<Problem> problems) =>
        problems.Add(new Problem("export.strength", RunOptions.Words(export.Strength), "is for an adapter, and the model has none: leave it at 1, or name one with export.adapter"));

    /// <summary>What of a model the layout has no words for.</summary>
    private static void LayoutFits(string layout, ModelConfig model, List<Problem> problems)
    {
        if (!HubLayout.Names.Contains(layout)) return;
        IReadOnlyList<Problem> obstacles = HubLayout.Obstacles(layout, model);
        if (obstacles.Count > 0) problems.Add(new Problem(LayoutField, layout, $"cannot express this model ({string.Join("; ", obstacles)}): choose another layout"));
    }

    private static void AdapterIsThere(string adapter, Store store, List<Problem> problems)
    {
        try { _ = BaseCheckpoint.Find(adapter, store, warn: null); }
        catch (Exception e) when (e is UserException or ArgumentException) { problems.Add(new Problem(AdapterField, Short(adapter), e.Message)); }
    }

    /// <summary>A folder that is there is refused before any work, unless the run itself has made it.</summary>
    private static void TargetIsFree(RunConfig config, Store store, string? run, List<Problem> problems)
    {
        // Without a name the folder is the run's own.
        if (store.ExportFolder(config, run) is not { } folder || (run is not null && ExportRun.MadeBy(folder) == run)) return;
        if (OutputFolder.Problem(folder) is { } reason) problems.Add(new Problem(TargetField, Short(folder), reason));
    }
}
