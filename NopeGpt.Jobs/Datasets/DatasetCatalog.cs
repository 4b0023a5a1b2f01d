using NopeGpt.Data;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Tokenization;

namespace NopeGpt.Jobs.Datasets;

/// <summary>A data set of the store.</summary>
/// <param name="Info">Null where its dataset.json cannot be read.</param>
/// <param name="Problem">Why it cannot be used; null where nothing is seen to be wrong. Its ids and checksums are not read.</param>
/// <param name="Bytes">On the disk, all its files together.</param>
public sealed record DatasetEntry(string Name, string Folder, DatasetInfo? Info, string? Problem, long Bytes, DateTimeOffset Made);

/// <summary>What the store has of prepared data sets. Reads the folders each time: they are the truth.</summary>
public sealed class DatasetCatalog(Store store)
{
    /// <summary>All data sets by name. One that is being made is not among them.</summary>
    public IReadOnlyList<DatasetEntry> Datasets() => [.. Names(store.DatasetsFolder).Select(name => Dataset(name)!)];

    /// <summary>The data set of a name; null where there is none.</summary>
    public DatasetEntry? Dataset(string name)
    {
        if (!Store.IsName(name)) return null;
        string folder = store.DatasetFolder(name);
        if (!Directory.Exists(folder)) return null;
        (DatasetInfo? info, string? problem) = (null, null);
        try
        {
            info = DatasetInfo.Read(folder);
            Check(store.DatasetTokens(name), info);
        }
        catch (Exception e) when (e is InvalidDataException or IOException or UnauthorizedAccessException) { problem = e.Message; }
        return new DatasetEntry(name, folder, info, problem, Size(folder), Directory.GetLastWriteTimeUtc(folder));
    }

    /// <summary>Deletes a data set: it is renamed first, so that a half-deleted one is never seen.</summary>
    public void DeleteDataset(string name)
    {
        string aside = Path.Combine(store.DatasetsFolder, $".{name}.{Guid.NewGuid():N}.old");
        Directory.Move(store.DatasetFolder(name), aside);
        Directory.Delete(aside, recursive: true);
    }

    /// <summary>What can be seen without reading the ids.</summary>
    private static void Check(string path, DatasetInfo info)
    {
        using TokenFile tokens = TokenFile.Open(path);
        if (tokens.Count != info.Tokens || tokens.TokenizerHash != info.TokenizerHash)
            throw new InvalidDataException($"{path} holds other tokens than the {DatasetInfo.FileName} beside it tells; prepare the data set again.");
        string messages = Path.ChangeExtension(path, ".messages");
        if (info.Kind != DatasetKind.Text && !File.Exists(messages)) throw new InvalidDataException($"{messages} is not there; prepare the data set again.");
    }

    private static IEnumerable<string> Names(string folder) =>
        Directory.Exists(folder) ? Directory.EnumerateDirectories(folder).Select(path => Path.GetFileName(path)!).Where(Store.IsName).Order(StringComparer.Ordinal) : [];

    private static long Size(string folder)
    {
        try { return new DirectoryInfo(folder).EnumerateFiles("*", SearchOption.AllDirectories).Sum(f => f.Length); }
        catch (IOException) { return 0; /* deleted at this moment */ }
    }
}
