using NopeGpt.Data;
using NopeGpt.Jobs;

namespace NopeGpt.Web.Components.Parts;

/// <summary>The sizes of data sets, read once for each.</summary>
internal sealed class DatasetFacts(Store store)
{
    private readonly Dictionary<string, DatasetSize?> _known = new(StringComparer.Ordinal);

    /// <summary>Names of the store's data sets that have their tokens.</summary>
    public IReadOnlyList<string> Names { get; } =
        [.. Directory.EnumerateDirectories(store.DatasetsFolder).Select(d => Path.GetFileName(d)).Where(n => Store.IsName(n) && File.Exists(store.DatasetTokens(n))).Order(StringComparer.Ordinal)];

    /// <summary>Null where there is no such data set or it cannot be read.</summary>
    public DatasetSize? Find(string nameOrPath)
    {
        if (nameOrPath.Length == 0) return null;
        if (!_known.TryGetValue(nameOrPath, out DatasetSize? size)) _known[nameOrPath] = size = Read(nameOrPath);
        return size;
    }

    private DatasetSize? Read(string nameOrPath)
    {
        try
        {
            using TokenFile file = TokenFile.Open(store.ResolveTokenFile(nameOrPath));
            return new DatasetSize(file.VocabularySize, file.Count);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or InvalidDataException)
        {
            return null;
        }
    }
}

/// <param name="Vocabulary">Ids of its tokenizer.</param>
/// <param name="Tokens">How many tokens it holds.</param>
internal sealed record DatasetSize(int Vocabulary, long Tokens);
