using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs;
using NopeGpt.Jobs.Datasets;
using NopeGpt.Jobs.Tokenizers;

namespace NopeGpt.Web.Tokens;

/// <summary>A tokenizer as the page lists it.</summary>
/// <param name="IsPublished">A published encoding, known by its name.</param>
/// <param name="IsHere">It can be used; otherwise its file has to be got first.</param>
/// <param name="Hash">Null where it cannot be read.</param>
/// <param name="Bytes">On the disk, or to be got; 0 for one that comes with the program.</param>
/// <param name="Made">When it came into the store.</param>
/// <param name="Datasets">Data sets of the store that were made with it.</param>
/// <param name="Problem">Why it cannot be read; null where it can.</param>
public sealed record TokenizerCard(string Name, bool IsPublished, bool IsHere, string Kind, int VocabularySize, IReadOnlyList<string> SpecialTokens, string? Hash, long Bytes,
    DateTimeOffset? Made, TokenizerInfo? Info, IReadOnlyList<string> Datasets, string? Problem)
{
    public bool IsUsable => IsHere && Problem is null;
}

/// <summary>The tokenizers of the store and the published encodings, read once each; those used last stay in memory. Safe for concurrent use.</summary>
internal sealed class TokenizerShelf(Store store)
{
    /// <summary>One of 200,000 tokens takes some 60 MB.</summary>
    private const int MostLoaded = 8;

    private readonly Lock _lock = new();
    private readonly TokenizerLibrary _library = new(store);
    private readonly Dictionary<string, Facts> _facts = new(StringComparer.Ordinal);
    private readonly LinkedList<(string Name, string Stamp, Lazy<Tokenizer> Tokenizer)> _loaded = [];

    public TokenizerLibrary Library => _library;

    /// <summary>All of them, the store's first. Reads files: not for the thread of a page.</summary>
    public IReadOnlyList<TokenizerCard> List(CancellationToken cancel = default)
    {
        DatasetEntry[] all = [.. new DatasetCatalog(store).Datasets().Where(d => d.Info is not null)];
        ILookup<string, string> datasets = all.ToLookup(d => d.Info!.TokenizerHash, d => d.Name);
        List<TokenizerCard> cards = [];
        foreach (string name in _library.Names)
        {
            cancel.ThrowIfCancellationRequested();
            if (Describe(name) is not { } facts) continue;
            IReadOnlyList<string> made = [.. facts.Hashes.SelectMany(hash => datasets[hash]).Distinct().Order(StringComparer.Ordinal)];
            cards.Add(new TokenizerCard(name, false, true, facts.Kind, facts.VocabularySize, facts.SpecialTokens, facts.Hashes.Count > 0 ? facts.Hashes[0] : null, Try(() => _library.Size(name)), Try(() => (DateTimeOffset?)_library.Made(name)),
                _library.Info(name), made, facts.Problem));
        }
        foreach (PublishedFile encoding in PublishedFile.All)
        {
            bool here = encoding.IsIncluded || encoding.Find(store.TokenizerPlaces) is not null;
            cards.Add(new TokenizerCard(encoding.Name, true, here, "published byte-level BPE", encoding.VocabularySize, encoding.SpecialTokens, encoding.Hash, encoding.IsIncluded ? 0 : encoding.Bytes,
                null, null, [.. all.Where(d => d.Info!.TokenizerHash == encoding.Hash || d.Info.Recipe.Tokenizer == encoding.Name).Select(d => d.Name)], null));
        }
        return cards;
    }

    /// <summary>Loads one, or gives it from memory. Reads files: not for the thread of a page.</summary>
    /// <exception cref="IOException">There is none, or it is not here.</exception>
    /// <exception cref="InvalidDataException">It is damaged.</exception>
    public Tokenizer Load(string name)
    {
        string stamp = Stamp(name);
        Lazy<Tokenizer>? wanted = null;
        lock (_lock)
        {
            for (LinkedListNode<(string Name, string Stamp, Lazy<Tokenizer> Tokenizer)>? node = _loaded.First, next; node is not null; node = next)
            {
                next = node.Next;
                if (node.Value.Name != name) continue;
                if (node.Value.Stamp == stamp) wanted = node.Value.Tokenizer;
                _loaded.Remove(node);
            }
            wanted ??= new Lazy<Tokenizer>(() => _library.Load(name));
            _loaded.AddFirst((name, stamp, wanted));
            if (_loaded.Count > MostLoaded) _loaded.RemoveLast();
        }
        try { return wanted.Value; }
        catch
        {
            // What failed may be mended, without a change of the file that is looked at here.
            lock (_lock)
            {
                if (_loaded.FirstOrDefault(one => one.Tokenizer == wanted) is { Tokenizer: not null } failed) _loaded.Remove(failed);
            }
            throw;
        }
    }

    private Facts? Describe(string name)
    {
        string stamp = Stamp(name);
        lock (_lock)
        {
            if (_facts.TryGetValue(name, out Facts? known) && known.Stamp == stamp && known.Problem is null) return known;
        }
        Facts facts;
        try
        {
            Tokenizer tokenizer = Load(name);
            // A data set of conversations is made with the chat markers, which the file of a published encoding does not keep.
            facts = new Facts(stamp, tokenizer.Kind, tokenizer.VocabularySize, [.. tokenizer.SpecialTokens.OrderBy(special => special.Value).Select(special => special.Key)], [tokenizer.Hash, tokenizer.WithChatMarkers().Hash], null);
        }
        catch (Exception) when (!_library.Contains(name)) { return null; /* deleted at this moment */ }
        catch (Exception e) when (e is InvalidDataException or IOException or UnauthorizedAccessException) { facts = new Facts(stamp, "", 0, [], [], e.Message); }
        lock (_lock) _facts[name] = facts;
        return facts;
    }

    /// <summary>Changes when the tokenizer does.</summary>
    private string Stamp(string name)
    {
        if (!_library.Contains(name)) return "published";
        FileInfo file = new(Tokenizer.FileIn(store.TokenizerFolder(name)) ?? store.TokenizerFolder(name));
        return file.Exists ? $"{file.LastWriteTimeUtc.Ticks} {file.Length}" : "gone";
    }

    private static T? Try<T>(Func<T> read)
    {
        try { return read(); }
        catch (IOException) { return default; /* deleted at this moment */ }
    }

    private sealed record Facts(string Stamp, string Kind, int VocabularySize, IReadOnlyList<string> SpecialTokens, IReadOnlyList<string> Hashes, string? Problem);
}
