using System.Globalization;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Model.Storage;

namespace NopeGpt.Jobs.Inference;

/// <summary>A checkpoint of the store.</summary>
/// <param name="Name">RUN_ID/000000100.</param>
internal sealed record CatalogEntry(string Name, string RunId, long Step, string Folder, DateTimeOffset Created);

/// <summary>The checkpoints of a store by the names that the API gives them: RUN_ID (its newest), RUN_ID/STEP, or an absolute folder.</summary>
internal sealed class ModelCatalog(Store store)
{
    private const string Prefix = "step-";
    private const int NamesInMessage = 8;

    /// <summary>Where the files of published tokenizers may lie.</summary>
    public IReadOnlyList<string> TokenizerPlaces { get; init; } = store.TokenizerPlaces;

    /// <summary>Every checkpoint, newest run first and newest step first within a run.</summary>
    public IReadOnlyList<CatalogEntry> List() =>
        [.. Directory.GetDirectories(store.RunsFolder).Select(Path.GetFileName).OfType<string>().Where(Store.IsName).OrderDescending(StringComparer.Ordinal).SelectMany(OfRun)];

    /// <summary>The folders that a name means, best first: the newest checkpoint of a run and, should it be damaged, those before it.</summary>
    /// <exception cref="ModelException">There is none; the message names what there is.</exception>
    public IReadOnlyList<string> Resolve(string name)
    {
        if (Path.IsPathRooted(name))
            return Directory.Exists(name) ? [Path.TrimEndingDirectorySeparator(Path.GetFullPath(name))] : throw Unknown(name, $"the folder {name} does not exist");
        string[] parts = name.Split('/');
        if (parts.Length > 2 || !Store.IsName(parts[0])) throw Unknown(name, "it is neither a run's id, RUN_ID/STEP nor an absolute folder");
        IReadOnlyList<CatalogEntry> entries = OfRun(parts[0]);
        if (entries.Count == 0) throw Unknown(name, Directory.Exists(store.RunFolder(parts[0])) ? $"run {parts[0]} has no checkpoint yet" : $"there is no run {parts[0]}");
        if (parts.Length == 1) return [.. entries.Select(e => e.Folder)];
        string step = parts[1].StartsWith(Prefix, StringComparison.Ordinal) ? parts[1][Prefix.Length..] : parts[1];
        CatalogEntry? entry = long.TryParse(step, NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? entries.FirstOrDefault(e => e.Step == number) : null;
        return entry is null ? throw Unknown(name, $"run {parts[0]} has no checkpoint of step {step}") : [entry.Folder];
    }

    private IReadOnlyList<CatalogEntry> OfRun(string id) =>
        [.. Checkpoint.List(Path.Combine(store.RunFolder(id), "checkpoints")).Select(c =>
            new CatalogEntry($"{id}/{Path.GetFileName(c.Path)[Prefix.Length..]}", id, c.Step, c.Path, new DateTimeOffset(Directory.GetLastWriteTimeUtc(c.Path), TimeSpan.Zero)))];

    private ModelException Unknown(string name, string reason)
    {
        string[] known = [.. List().Select(e => e.RunId).Distinct()];
        string run = name.Split('/')[0];
        // A run that is there, though without a checkpoint, was not mistyped.
        string? nearest = Store.IsName(run) && Directory.Exists(store.RunFolder(run)) ? null : Settings.Nearest(run, known);
        string cure = known.Length == 0 ? "the store has no checkpoint yet: train a model first"
            : nearest is not null ? $"did you mean {nearest}?"
            : $"known are {string.Join(", ", known.Take(NamesInMessage))}{(known.Length > NamesInMessage ? $" and {known.Length - NamesInMessage} more" : "")}";
        return new ModelException(ModelFailure.Unknown, $"there is no model '{name}': {reason}; {cure}");
    }
}
