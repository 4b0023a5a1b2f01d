using System.Text.Json;
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
            string tokens = store.ResolveTokenFile(nameOrPath);
            using FileStream stream = File.OpenRead(Store.TokenizerBeside(tokens));
            using JsonDocument json = JsonDocument.Parse(stream);
            int vocabulary = 1 + Math.Max(
                json.RootElement.GetProperty("model").GetProperty("vocab").EnumerateObject().Max(t => t.Value.GetInt32()),
                json.RootElement.GetProperty("added_tokens").EnumerateArray().Select(t => t.GetProperty("id").GetInt32()).DefaultIfEmpty(-1).Max());
            // Ids take two bytes where the vocabulary allows; the header beside them is too small to matter for an estimate.
            return new DatasetSize(vocabulary, new FileInfo(tokens).Length / (vocabulary <= 65_536 ? 2 : 4));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or JsonException or KeyNotFoundException or InvalidOperationException)
        {
            return null;
        }
    }
}

/// <param name="Vocabulary">Ids of its tokenizer.</param>
/// <param name="Tokens">About how many tokens it holds.</param>
internal sealed record DatasetSize(int Vocabulary, long Tokens);
