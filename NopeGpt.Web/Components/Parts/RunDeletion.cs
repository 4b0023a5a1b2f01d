using MudBlazor;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Components.Parts;

/// <summary>Asks whether runs are to be deleted, saying what they take and who needs them, and deletes them.</summary>
internal static class RunDeletion
{
    private const int MostNamed = 5;

    /// <returns>False where nothing was deleted, because a person did not want it.</returns>
    public static async Task<bool> AskAsync(IReadOnlyList<RunRow> runs, RunQueue queue, Store store, IDialogService dialogs, ISnackbar snackbar)
    {
        List<string> needed = [];
        foreach (RunRow run in runs)
        {
            try { needed.AddRange(await queue.NeededByAsync(run.Id)); }
            catch (UserException) { /* it is gone already */ }
        }
        long bytes = await Task.Run(() => runs.Sum(r => RunDisk.Bytes(store.RunFolder(r.Id))));
        string what = runs.Count == 1 ? runs[0].Title : $"{runs.Count} runs ({Named(runs.Select(r => r.Title))})";
        string fate = queue.TrashDays == 0 ? "What is deleted is gone." : $"The trash keeps {(runs.Count == 1 ? "it" : "them")} for {queue.TrashDays} days.";
        string others = needed.Count == 0 ? "" : $" Something is needed: {Named(needed.Distinct())}.";
        bool? sure = await dialogs.ShowMessageBoxAsync(runs.Count == 1 ? "Delete this run?" : "Delete these runs?", $"{what}: {Figures.Bytes(bytes)} on the disk.{others} {fate}", yesText: needed.Count == 0 ? "Delete" : "Delete all the same", cancelText: "Keep");
        if (sure != true) return false;
        foreach (RunRow run in runs)
        {
            try { await queue.DeleteAsync(run.Id, evenIfNeeded: needed.Count > 0); }
            catch (UserException e) { snackbar.Add(e.Message, Severity.Error); }
        }
        return true;
    }

    private static string Named(IEnumerable<string> all)
    {
        string[] texts = [.. all];
        return string.Join(", ", texts.Take(MostNamed)) + (texts.Length > MostNamed ? $" and {texts.Length - MostNamed} more" : "");
    }
}
