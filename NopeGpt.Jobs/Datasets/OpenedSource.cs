using NopeGpt.Data.Documents;
using NopeGpt.Data.Documents.Hub;

namespace NopeGpt.Jobs.Datasets;

/// <summary>A source by its address: files on this machine, or a data set of the Hub, whose connection it holds.</summary>
public sealed class OpenedSource : IDisposable
{
    /// <summary>How an address may be written, for messages.</summary>
    public const string Forms = "the path of a file, a folder or a pattern of txt, jsonl, json, csv or parquet files (each also .gz or .zst), or hub:OWNER/NAME";

    private readonly HubClient? _client;

    private OpenedSource(Source source) => Source = source;

    private OpenedSource(HubClient client, HubDataset hub, SourceOptions? options, Action<DownloadProgress>? download) => (_client, Hub, Source) = (client, hub, hub.ToSource(options, download));

    public Source Source { get; }

    /// <summary>The data set of the Hub; null for files.</summary>
    public HubDataset? Hub { get; }

    /// <summary>The address with the commit in it, so that it means the same files for ever; null for files.</summary>
    public string? Pinned => Hub is null ? null : (Hub.Name with { Revision = Hub.Commit }).ToString();

    /// <summary>The data set of the Hub that an address means: hub:OWNER/NAME, or OWNER/NAME where no file or folder of that name is here. Null for files.</summary>
    /// <exception cref="FormatException">It begins with hub: but is not of that form.</exception>
    public static HubName? NameOf(string address)
    {
        ArgumentNullException.ThrowIfNull(address);
        if (HubName.IsHub(address)) return Correct(HubName.Parse(address));
        string name = address.Split(':', '@')[0];
        if (name.Count(c => c == '/') != 1 || Path.Exists(address) || Path.Exists(name) || address.AsSpan().ContainsAny("*?\\") || Path.HasExtension(name) && KnownDatasets.Find(name) is null) return null;
        try { return Correct(HubName.Parse(address)); }
        catch (FormatException) { return null; }
    }

    /// <summary>What this program knows of the data set that an address means; null for files and unknown ones.</summary>
    /// <exception cref="FormatException">The address begins with hub: but is not of that form.</exception>
    public static KnownDataset? Known(string address) => NameOf(address) is { } name ? KnownDatasets.Find(name.Dataset) : null;

    /// <summary>Opens a source. Files of the Hub are got when their turn comes.</summary>
    /// <param name="download">Called from the threads that download.</param>
    /// <param name="hub">How the Hub is asked; null for the store's way.</param>
    /// <exception cref="UserException">It cannot be had; the message says why.</exception>
    public static OpenedSource Open(Store store, string address, SourceOptions? options = null, Action<DownloadProgress>? download = null, HubOptions? hub = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(store);
        HubClient? client = null;
        try
        {
            if (NameOf(address) is not { } name) return OpenFiles(address, options);
            client = new HubClient(hub ?? store.Hub);
            return new OpenedSource(client, HubDataset.OpenAsync(client, name, cancel).GetAwaiter().GetResult(), options, download);
        }
        catch (Exception e)
        {
            client?.Dispose();
            if (e is HubException) throw new UserException(HubName.IsHub(address) ? e.Message : $"{address} is neither a file nor a folder here, and as a data set of the Hub it failed: {e.Message}");
            if (e is FormatException) throw new UserException(e.Message);
            throw;
        }
    }

    /// <summary>What a recipe makes of its records, and from which columns: those that it names, else known or guessed ones.</summary>
    /// <exception cref="UserException">They are not there; the message lists those that are.</exception>
    public (DatasetKind Kind, ColumnMapping Columns) Mapping(PrepareConfig recipe, CancellationToken cancel = default) => DatasetMaker.Columns(recipe, this, cancel);

    /// <summary>Opens files on this machine.</summary>
    /// <exception cref="UserException">They are not there, or of no known format.</exception>
    public static OpenedSource OpenFiles(string path, SourceOptions? options = null)
    {
        try { return new OpenedSource(Source.Open(path, options)); }
        catch (Exception e) when (e is FileNotFoundException or ArgumentException) { throw new UserException($"{e.Message.Split(" (Parameter")[0].TrimEnd('.')}: give {Forms}"); }
    }

    public void Dispose() => _client?.Dispose();

    private static HubName Correct(HubName name) => KnownDatasets.Find(name.Dataset) is { } known ? name with { Dataset = known.Name } : name;
}
