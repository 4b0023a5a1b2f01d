using System.CommandLine;
using System.Text.Json;
using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;
using NopeGpt.Jobs.Configuration;
using NopeGpt.Jobs.Datasets;

namespace NopeGpt.Jobs.Commands;

/// <summary>`nopegpt data list`: the data sets that are here, and those that are known.</summary>
internal sealed class DataListVerb() : Verb("list", "List the prepared data sets of the store and the known ones of the Hub.")
{
    private readonly Option<string?> _root = CommonOptions.Root();
    private readonly Option<bool> _json = CommonOptions.Flag("--json", "Print one JSON document on stdout: datasets and known.");

    public override IReadOnlyList<Option> Options => [_root, _json];

    public override Func<CancellationToken, Task<int>> Read(Arguments arguments)
    {
        bool json = arguments.Flag(_json);
        return Abandonable(() =>
        {
            Store store = arguments.Store(_root);
            IReadOnlyList<DatasetEntry> datasets = new DatasetCatalog(store).Datasets();
            if (json) Console.WriteLine(JsonSerializer.Serialize(new { store.Root, Datasets = datasets.Select(Json), Known = KnownDatasets.All.Select(Json) }, Settings.Json));
            else Print(store, datasets);
            return ExitCode.Done;
        });
    }

    private static void Print(Store store, IReadOnlyList<DatasetEntry> datasets)
    {
        Console.WriteLine(datasets.Count == 0 ? $"No data sets are in {store.Root} yet.\n" : $"Data sets in {store.Root}:\n");
        if (datasets.Count > 0)
        {
            Console.WriteLine(TextTable.Format(["name", "kind", "documents", "tokens", "vocabulary", "tokenizer", "size"], datasets.Select(d => (IReadOnlyList<object?>)
                [d.Name, d.Info is { } info ? Word(info.Kind) : "damaged", d.Info?.Documents, d.Info?.Tokens, d.Info?.VocabularySize, TokenizerOf(d), TextTable.Bytes(d.Bytes)])));
        }
        foreach (DatasetEntry damaged in datasets.Where(d => d.Problem is not null)) Console.WriteLine($"{damaged.Name}: {damaged.Problem}\n");
        Console.WriteLine("Known data sets of the Hub; prepare one with `nopegpt data prepare --source hub:NAME:SUBSET ...`:\n");
        Console.Write(TextTable.Format(["name", "kind", "licence", "size"], KnownDatasets.All.Select(k => (IReadOnlyList<object?>)[k.Name, Word(k.Kind), k.Licence, k.Size])));
        foreach (KnownDataset known in KnownDatasets.All.Where(k => k.Subsets.Count > 0)) Console.WriteLine($"\nsubsets of {known.Name}: {string.Join(", ", known.Subsets)}");
    }

    private static object Json(DatasetEntry d) => new
    {
        d.Name, d.Info?.Kind, d.Info?.Documents, d.Info?.Tokens, d.Info?.TextBytes, Tokenizer = TokenizerOf(d), d.Info?.VocabularySize, d.Info?.TokenizerHash, d.Bytes, d.Folder, d.Made,
        d.Info?.Recipe.Source, d.Info?.Columns, d.Info?.Origin, d.Info?.Licence, d.Info?.RunId, d.Problem,
    };

    private static object Json(KnownDataset k) => new
    {
        k.Name, k.Kind, k.Subsets, k.DefaultSubset, Splits = (string[])[k.DefaultSplit, .. k.OtherSplits], Columns = k.Columns.ToString(), k.Licence, k.Size, k.Summary, k.Peculiar,
    };

    /// <summary>The tokenizer that the recipe names; one that was trained on the text has the data set's name.</summary>
    private static string? TokenizerOf(DatasetEntry d) => d.Info is null ? null : d.Info.Recipe.Tokenizer.Length > 0 ? d.Info.Recipe.Tokenizer : d.Name;

    private static string Word(DatasetKind kind) => kind.ToString().ToLowerInvariant();
}
