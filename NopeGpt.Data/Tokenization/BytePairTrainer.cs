using System.Runtime.InteropServices;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>Trains byte-level byte-pair encodings (Sennrich, Haddow, Birch: "Neural machine translation of rare words with subword units", 2016).
/// The most frequent pair inside words becomes a token, again and again. Counts, ties and ids are those of Hugging Face's trainer:
/// higher count first, then the smaller pair of ids; special tokens first, then the 256 bytes in the order of their characters, then the merges.
/// The same documents in the same order give the same tokenizer.</summary>
public sealed class BytePairTrainer
{
    private const int ProgressEvery = 64;
    private readonly int _vocabularySize;
    private readonly List<byte[]> _tokens = [];
    private readonly Dictionary<string, int> _specials = [];
    private readonly List<Merge> _merges = [];
    private readonly HashSet<long> _merged = [];
    private readonly Dictionary<string, int> _ids = [];
    private readonly List<Word> _words = [];
    private readonly Dictionary<long, Pair> _pairs = [];
    private readonly PriorityQueue<(long Pair, long Count), (long Count, long Pair)> _queue = new(Comparer<(long Count, long Pair)>.Create(
        (a, b) => a.Count != b.Count ? b.Count.CompareTo(a.Count) : a.Pair.CompareTo(b.Pair)));

    private BytePairTrainer(int vocabularySize, IReadOnlyList<string> specialTokens)
    {
        _vocabularySize = vocabularySize;
        foreach (string special in specialTokens)
        {
            _specials.Add(special, _tokens.Count);
            _tokens.Add(Encoding.UTF8.GetBytes(special));
        }
        foreach (byte value in ByteAlphabet.Order) AddToken([value]);
    }

    /// <summary>Trains a tokenizer.</summary>
    /// <param name="documents">the text, read once; words never reach over the end of a document</param>
    /// <param name="vocabularySize">special tokens + 256 + merges; fewer come out when the text has no more pairs to merge</param>
    /// <param name="specialTokens">their ids are 0, 1, ... in this order; &lt;|endoftext|&gt; must be among them; that alone by default</param>
    /// <param name="progress">is told the share of merges that is done, 0 to 1 (counting the words comes before and is not in it)</param>
    /// <param name="cancel">stops between two documents or merges</param>
    /// <exception cref="ArgumentException">The vocabulary is too small for the bytes and special tokens, or the special tokens are not as said.</exception>
    public static Tokenizer Train(
        IEnumerable<string> documents, int vocabularySize, IReadOnlyList<string>? specialTokens = null, Action<double>? progress = null, CancellationToken cancel = default)
    {
        ArgumentNullException.ThrowIfNull(documents);
        specialTokens ??= [Tokenizer.EndOfText];
        if (!specialTokens.Contains(Tokenizer.EndOfText)) throw new ArgumentException($"The special tokens must include {Tokenizer.EndOfText}.", nameof(specialTokens));
        if (specialTokens.Any(string.IsNullOrEmpty) || specialTokens.Distinct().Count() != specialTokens.Count)
            throw new ArgumentException("Each special token must be given once and must not be empty.", nameof(specialTokens));
        foreach (string special in specialTokens)
            if (Encoding.UTF8.GetBytes(special) is { } bytes && WordSplitter.End(bytes, 0) == bytes.Length)
                throw new ArgumentException($"The special token '{special}' could also be spelled by merges of ordinary text; put marks around it, as in <|{special}|>.", nameof(specialTokens));
        int smallest = specialTokens.Count + ByteAlphabet.Order.Length;
        if (vocabularySize < smallest)
            throw new ArgumentException($"The vocabulary size {vocabularySize} is too small: {ByteAlphabet.Order.Length} bytes and {specialTokens.Count} special tokens need at least {smallest}.", nameof(vocabularySize));
        BytePairTrainer trainer = new(vocabularySize, specialTokens);
        trainer.CountWords(documents, cancel);
        trainer.CountPairs();
        trainer.Merge(progress, cancel);
        return new Tokenizer(new Vocabulary([.. trainer._tokens], trainer._specials, trainer._merges)
        {
            EndOfTextId = trainer._specials[Tokenizer.EndOfText],
            ByteIds = trainer.ByteIds(),
        });
    }

    /// <summary>Distinct words with their counts, in order of first appearance.</summary>
    private void CountWords(IEnumerable<string> documents, CancellationToken cancel)
    {
        Dictionary<string, long> counts = [];
        Dictionary<string, long>.AlternateLookup<ReadOnlySpan<char>> lookup = counts.GetAlternateLookup<ReadOnlySpan<char>>();
        foreach (string document in documents)
        {
            cancel.ThrowIfCancellationRequested();
            byte[] utf8 = Encoding.UTF8.GetBytes(document);
            for (int start = 0; start < utf8.Length;)
            {
                int end = WordSplitter.End(utf8, start);
                CollectionsMarshal.GetValueRefOrAddDefault(lookup, Encoding.UTF8.GetString(utf8, start, end - start), out _)++;
                start = end;
            }
        }
        int[] idOfByte = ByteIds();
        foreach ((string word, long count) in counts)
        {
            byte[] bytes = Encoding.UTF8.GetBytes(word);
            if (bytes.Length > 1) _words.Add(new Word { Ids = [.. bytes.Select(value => idOfByte[value])], Length = bytes.Length, Count = count });
        }
    }

    /// <summary>The ids of the bytes, which come after the special tokens.</summary>
    private int[] ByteIds()
    {
        int[] ids = new int[256];
        for (int i = 0; i < ByteAlphabet.Order.Length; i++) ids[ByteAlphabet.Order[i]] = _specials.Count + i;
        return ids;
    }

    private void CountPairs()
    {
        for (int index = 0; index < _words.Count; index++)
        {
            Word word = _words[index];
            for (int i = 0; i + 1 < word.Length; i++) Count(word.Ids[i], word.Ids[i + 1], word.Count, index);
        }
        foreach ((long pair, Pair state) in _pairs) _queue.Enqueue((pair, state.Count), (state.Count, pair));
    }

    private void Merge(Action<double>? progress, CancellationToken cancel)
    {
        int first = _tokens.Count;
        HashSet<long> grown = [];
        while (_tokens.Count < _vocabularySize && _queue.TryDequeue(out (long Pair, long Count) top, out _))
        {
            if (!_pairs.TryGetValue(top.Pair, out Pair? state)) continue; // merged already, by another entry of the same pair
            if (state.Count != top.Count)
            {
                // Counts only fall between two entries of a pair, so the right place is further down the queue.
                if (state.Count > 0) _queue.Enqueue((top.Pair, state.Count), (state.Count, top.Pair));
                continue;
            }
            cancel.ThrowIfCancellationRequested();
            (int left, int right) = ((int)(top.Pair >> 32), (int)top.Pair);
            int id = AddToken([.. _tokens[left], .. _tokens[right]]);
            if (_merged.Add(top.Pair)) _merges.Add(new(left, right, id));
            _pairs.Remove(top.Pair);
            foreach (int index in state.Words) MergeWord(index, left, right, id, grown);
            foreach (long pair in grown)
                if (_pairs.TryGetValue(pair, out Pair? changed) && changed.Count > 0) _queue.Enqueue((pair, changed.Count), (changed.Count, pair));
            grown.Clear();
            if (_tokens.Count % ProgressEvery == 0) progress?.Invoke((double)(_tokens.Count - first) / (_vocabularySize - first));
        }
        progress?.Invoke(1);
    }

    private void MergeWord(int index, int left, int right, int id, HashSet<long> grown)
    {
        Word word = _words[index];
        int[] ids = word.Ids;
        int to = 0;
        for (int from = 0; from < word.Length; from++)
        {
            if (ids[from] != left || from + 1 == word.Length || ids[from + 1] != right)
            {
                ids[to++] = ids[from];
                continue;
            }
            if (to > 0)
            {
                Count(ids[to - 1], left, -word.Count, index);
                grown.Add(Count(ids[to - 1], id, word.Count, index));
            }
            if (from + 2 < word.Length)
            {
                Count(right, ids[from + 2], -word.Count, index);
                grown.Add(Count(id, ids[from + 2], word.Count, index));
            }
            ids[to++] = id;
            from++;
        }
        word.Length = to;
    }

    /// <summary>Adds to a pair's count. A word is noted when it gains the pair; where it lost it again nothing is found there, which is harmless.</summary>
    private long Count(int left, int right, long change, int word)
    {
        long key = ((long)left << 32) | (uint)right;
        if (change < 0)
        {
            // The pair that is being merged right now is out of the table: its own overlaps ("aaa") need no count any more.
            if (_pairs.TryGetValue(key, out Pair? known)) known.Count += change;
            return key;
        }
        ref Pair? pair = ref CollectionsMarshal.GetValueRefOrAddDefault(_pairs, key, out _);
        pair ??= new Pair();
        pair.Count += change;
        if (pair.Words.Count == 0 || pair.Words[^1] != word) pair.Words.Add(word);
        return key;
    }

    /// <summary>The token of these bytes: an old one where two different merges spell the same, else a new one.</summary>
    private int AddToken(byte[] bytes)
    {
        ref int id = ref CollectionsMarshal.GetValueRefOrAddDefault(_ids, ByteAlphabet.ToText(bytes), out bool known);
        if (known) return id;
        id = _tokens.Count;
        _tokens.Add(bytes);
        return id;
    }

    private sealed class Word
    {
        public required int[] Ids { get; init; }
        public required long Count { get; init; }
        public required int Length { get; set; }
    }

    private sealed class Pair
    {
        public long Count { get; set; }
        public List<int> Words { get; } = [];
    }
}
