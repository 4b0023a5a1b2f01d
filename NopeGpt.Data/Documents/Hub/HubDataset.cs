namespace NopeGpt.Data.Documents.Hub;

/// <summary>A data set of the Hub at one commit: the files of one subset and split.</summary>
public sealed class HubDataset
{
    private const string ConvertedRevision = "refs/convert/parquet";
    private readonly HubClient _client;

    private HubDataset(HubClient client, HubName name, HubListing listing, string? licence, HubChoice choice)
    {
        (_client, Name, Commit, Unreached, Licence) = (client, name, listing.Commit, listing.Unreached, licence);
        (Subset, Subsets, Split, Splits, Files) = (choice.Subset, choice.Subsets, choice.Split, choice.Splits, choice.Files);
    }

    /// <summary>What was asked for.</summary>
    public HubName Name { get; }

    /// <summary>The commit that the revision meant when it was opened. A name with it as revision means the same files for ever, and needs no network once they are here.</summary>
    public string Commit { get; }

    /// <summary>Why the Hub could not be asked what the revision is now, as a sentence: then it is the commit of the last time. Null where it answered.</summary>
    public string? Unreached { get; }

    /// <summary>The licence that the data set's card names.</summary>
    public string? Licence { get; }

    /// <summary>The chosen subset; null where there are none.</summary>
    public string? Subset { get; }

    public IReadOnlyList<string> Subsets { get; }

    public string Split { get; }

    public IReadOnlyList<string> Splits { get; }

    public IReadOnlyList<HubFile> Files { get; }

    /// <summary>Bytes to download.</summary>
    public long Length => Files.Sum(f => f.Size);

    /// <summary>Looks a data set up.</summary>
    /// <exception cref="HubException">There is none of that name, subset, split or revision, or the Hub cannot be reached.</exception>
    public static async Task<HubDataset> OpenAsync(HubClient client, HubName name, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(client);
        ArgumentNullException.ThrowIfNull(name);
        HubListing listing = await HubListing.OpenAsync(client, name.Dataset, name.Revision, cancel).ConfigureAwait(false);
        HubChoice? choice = await HubChoice.MakeAsync(listing, name, cancel).ConfigureAwait(false);
        string? licence = listing.Licence;
        if (choice is null && name.Revision == HubName.MainRevision)
        {
            // Data sets that are made by a program have no files to read; the Hub keeps what the program makes on a branch of its own.
            listing = await HubListing.OpenAsync(client, name.Dataset, ConvertedRevision, cancel).ConfigureAwait(false);
            choice = await HubChoice.MakeConvertedAsync(listing, name, cancel).ConfigureAwait(false);
        }
        return choice is not null ? new(client, name, listing, licence, choice)
            : throw new HubException($"{name.Dataset} has no file that ends in {SourceFile.KnownEndings} (or one of these with .gz or .zst behind it).");
    }

    /// <summary>The files as a source. They are downloaded when their turn comes, some ahead.</summary>
    /// <param name="progress">Called from the threads that download.</param>
    public Source ToSource(SourceOptions? options = null, Action<DownloadProgress>? progress = null)
    {
        HubDownload download = new(_client, new(_client.Options.CacheFolder, Name.Dataset), Name.Dataset, Commit);
        SourceFile[] files = [.. Files.Select(file => SourceFile.Remote($"{Name.Dataset}/{file.Path}", SourceFile.FormatOf(file.Path)!.Value, file.Size, file.Sha256 ?? file.Id,
            cancel => Task.Run(() => download.GetAsync(file, progress, cancel), cancel)))];
        return new(Name.ToString(), files, options);
    }
}
