using NopeGpt.Jobs;
using NopeGpt.Jobs.Queue;

namespace NopeGpt.Web.Api;

/// <summary>Which runs that wait or work still need a data set, or a file that one is made of.</summary>
internal static class DatasetUse
{

    /// <summary>A run that learns from the data set, measures on it or makes it; null where there is none.</summary>
    public static Task<RunRow?> OfDatasetAsync(string name, RunQueue queue, Store store, CancellationToken cancel) => FindAsync(queue, store, config => config.Kind switch
    {
        RunKind.Prepare => config.Prepare.Dataset == name,
        RunKind.Tokenizer or RunKind.Export => false,
        RunKind.Finetune => config.Finetune.Datasets.Contains(name),
        _ => config.Data.Dataset == name || config.Data.Mixture.Any(m => m.StartsWith(name + "=", StringComparison.Ordinal)),
    }, cancel);

    /// <summary>A run that makes a data set or a tokenizer of the file; null where there is none.</summary>
    public static Task<RunRow?> OfSourceAsync(string path, RunQueue queue, Store store, CancellationToken cancel) =>
        FindAsync(queue, store, config => config.Kind switch
        {
            RunKind.Prepare => config.Prepare.Source == path,
            RunKind.Tokenizer => config.Tokenizer.Source == path,
            _ => false,
        }, cancel);

    private static async Task<RunRow?> FindAsync(RunQueue queue, Store store, Func<RunConfig, bool> uses, CancellationToken cancel) =>
        (await queue.ListAsync(cancel: cancel)).FirstOrDefault(run => RunStates.Active.Contains(run.State) && ConfigOf(store, run.Id) is { } config && uses(config));

    /// <summary>What a run was told to do; null where its folder is gone or run.json damaged.</summary>
    public static RunConfig? ConfigOf(Store store, string id)
    {
        try { return RunFolder.TryOpen(store, id, out RunFolder? folder) ? folder.Read().Config : null; }
        catch (UserException) { return null; }
    }
}
