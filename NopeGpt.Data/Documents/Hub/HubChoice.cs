namespace NopeGpt.Data.Documents.Hub;

/// <summary>The files of a data set that a name means.</summary>
internal sealed record HubChoice(string? Subset, IReadOnlyList<string> Subsets, string Split, IReadOnlyList<string> Splits, IReadOnlyList<HubFile> Files)
{
    /// <summary>Chooses by the data set's card, and where that says nothing, by the names of its files.</summary>
    /// <returns>Null when the data set has no data files at all.</returns>
    /// <exception cref="HubException">There is no such subset or split; the message lists those that are.</exception>
    public static async Task<HubChoice?> MakeAsync(HubListing listing, HubName name, CancellationToken cancel)
    {
        string[] subsets = [.. listing.Subsets.Select(s => s.Name)];
        string? wanted = name.Subset ?? KnownDatasets.Find(name.Dataset)?.DefaultSubset;
        CardSubset? card = wanted is not null && wanted != KnownDatasets.DefaultSubset ? listing.Subsets.FirstOrDefault(s => s.Name == wanted)
            : listing.Subsets.FirstOrDefault(s => s.IsDefault) ?? listing.Subsets.FirstOrDefault(s => s.Name == KnownDatasets.DefaultSubset) ?? (listing.Subsets.Count == 1 ? listing.Subsets[0] : null);
        if (card is null && subsets.Length > 0 && wanted is null or KnownDatasets.DefaultSubset) throw new HubException($"{name.Dataset} has several subsets and none of them is the default; choose one of {List(subsets)}.");
        if (card is { Splits.Count: > 0 }) return await ByCardAsync(listing, name, card, subsets, cancel).ConfigureAwait(false);
        // A subset that the card does not know may be a folder.
        string folder = card is not null ? card.Folder ?? "" : wanted is null or KnownDatasets.DefaultSubset ? "" : wanted;
        IReadOnlyList<HubFile> all = await listing.FilesAsync("", cancel).ConfigureAwait(false);
        HubFile[] within = [.. all.Where(f => folder.Length == 0 || f.Path.StartsWith(folder + "/", StringComparison.Ordinal) || f.Path.Contains($"/{folder}/", StringComparison.Ordinal))];
        if (subsets.Length == 0) subsets = [.. all.Where(f => SourceFile.FormatOf(f.Path) is not null && f.Path.Contains('/', StringComparison.Ordinal)).Select(f => f.Path[..f.Path.IndexOf('/', StringComparison.Ordinal)]).Distinct().Where(f => f != "data")];
        IReadOnlyList<(string Split, IReadOnlyList<HubFile> Files)> splits = DataFiles.Splits(within);
        if (splits.Count > 0) return OfSplits(name, card?.Name ?? (folder.Length > 0 ? folder : null), subsets, splits);
        return wanted is null || DataFiles.Splits(all).Count == 0 ? null : throw new HubException($"{name.Dataset} has no subset \"{wanted}\"; choose one of {List(subsets)}.");
    }

    /// <summary>Chooses on the branch that the Hub makes, where the folders are subset/split.</summary>
    public static async Task<HubChoice?> MakeConvertedAsync(HubListing listing, HubName name, CancellationToken cancel)
    {
        HubFile[] files = [.. (await listing.FilesAsync("", cancel).ConfigureAwait(false)).Where(f => f.Path.Split('/').Length == 3 && SourceFile.FormatOf(f.Path) == FileFormat.Parquet).OrderBy(f => f.Path, StringComparer.Ordinal)];
        string[] subsets = [.. files.Select(f => f.Path.Split('/')[0]).Distinct()];
        if (subsets.Length == 0) return null;
        string subset = name.Subset is { } wanted && wanted != KnownDatasets.DefaultSubset ? Array.Find(subsets, s => s == wanted) ?? throw new HubException($"{name.Dataset} has no subset \"{wanted}\"; choose one of {List(subsets)}.")
            : subsets.Contains(KnownDatasets.DefaultSubset) ? KnownDatasets.DefaultSubset
            : subsets.Length == 1 ? subsets[0]
            : throw new HubException($"{name.Dataset} has several subsets; choose one of {List(subsets)}.");
        // The Hub converts the first few gigabytes of large data sets only and names their splits partial-train, for example.
        return OfSplits(name, subset, subsets, [.. files.Where(f => f.Path.StartsWith(subset + "/", StringComparison.Ordinal)).GroupBy(f => f.Path.Split('/')[1]).Select(g => (g.Key, (IReadOnlyList<HubFile>)[.. g]))]);
    }

    private static async Task<HubChoice> ByCardAsync(HubListing listing, HubName name, CardSubset card, string[] subsets, CancellationToken cancel)
    {
        string[] splits = [.. card.Splits.Select(s => s.Split).Distinct()];
        string split = ChooseSplit(name, splits);
        string[] patterns = [.. card.Splits.Where(s => s.Split == split).SelectMany(s => s.Patterns)];
        // Only the folders that matter: the whole list of a large data set is long.
        string[] folders = [.. patterns.Select(DataFiles.FolderOf).Distinct()];
        if (folders.Contains("")) folders = [""];
        List<HubFile> files = [];
        foreach (string folder in folders) files.AddRange(await listing.FilesAsync(folder, cancel).ConfigureAwait(false));
        HubFile[] matching = [.. DataFiles.Matching(files, patterns).DistinctBy(f => f.Path)];
        return matching.Length > 0 ? new(card.Name, subsets, split, splits, matching)
            : throw new HubException($"{name.Dataset} says that {split} of {card.Name} is {List(patterns)}, but has no data file of that name at this revision; choose another subset or revision.");
    }

    private static HubChoice OfSplits(HubName name, string? subset, string[] subsets, IReadOnlyList<(string Split, IReadOnlyList<HubFile> Files)> splits)
    {
        string[] names = [.. splits.Select(s => s.Split)];
        string split = ChooseSplit(name, names);
        return new(subset, subsets, split, names, splits.First(s => s.Split == split).Files);
    }

    private static string ChooseSplit(HubName name, string[] splits)
    {
        if (name.Split is { } wanted) return Array.Find(splits, s => s == wanted) ?? throw new HubException($"{name.Dataset} has no split \"{wanted}\"; choose one of {List(splits)}.");
        string? known = KnownDatasets.Find(name.Dataset)?.DefaultSplit;
        return Array.Find(splits, s => s == known) ?? Array.Find(splits, s => s == DataFiles.Train) ?? Array.Find(splits, s => s == "partial-" + DataFiles.Train)
            ?? (splits.Length == 1 ? splits[0] : throw new HubException($"{name.Dataset} has no split \"{DataFiles.Train}\"; choose one of {List(splits)}."));
    }

    private static string List(IEnumerable<string> names) => ColumnMapping.List(names);
}
