using System.Buffers;
using System.Text;
using System.Text.Unicode;

namespace NopeGpt.Data.Tokenization;

/// <summary>Text to ids by a vocabulary's rules: change the text, cut it into words, begin each as bytes or characters, merge. It works on UTF-8, and
/// every thread at work has memory of its own, where it also remembers words. Safe for concurrent use.</summary>
internal sealed class TextEncoder
{
    private readonly TextRules _rules;
    private readonly PairTable _pairs;
    private readonly int[] _byteIds;
    private readonly Dictionary<Rune, int> _characters = [];
    private readonly TokenTable? _tokens;
    private readonly SearchValues<string>? _fixedWords;
    private readonly string[] _fixedByLength = [];
    private readonly byte[]? _boundary;

    /// <summary>The memory of threads that are not at work. A thread looks first where it left its own.</summary>
    private readonly Workspace?[] _idle = new Workspace?[2 * Environment.ProcessorCount];

    public TextEncoder(Vocabulary vocabulary)
    {
        _rules = vocabulary.Rules;
        _pairs = new PairTable(vocabulary.Merges);
        _byteIds = vocabulary.ByteIds;
        if (_rules.Characters) FindCharacters(vocabulary);
        if (_rules.Pattern == WordPattern.Whole) _boundary = Boundary(vocabulary);
        if (_rules.WholeWords || _rules.Ranked) _tokens = new TokenTable(vocabulary.Tokens, OrdinaryIds(vocabulary));
        if (_rules.FixedWords.Count == 0) return;
        _fixedWords = SearchValues.Create([.. _rules.FixedWords.Keys], StringComparison.Ordinal);
        _fixedByLength = [.. _rules.FixedWords.Keys.OrderByDescending(word => word.Length)];
    }

    /// <summary>Appends the ids of the text. Half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD.</summary>
    public void Encode(ReadOnlySpan<char> text, List<int> into)
    {
        if (_fixedWords is not null)
        {
            while (text.IndexOfAny(_fixedWords) is >= 0 and int at)
            {
                EncodePart(text[..at], into);
                int length = FixedWord(text[at..], out int id);
                into.Add(id);
                text = text[(at + length)..];
            }
        }
        EncodePart(text, into);
    }

    /// <summary>Appends the ids of UTF-8; what is not valid in it becomes U+FFFD.</summary>
    public void Encode(ReadOnlySpan<byte> utf8, List<int> into)
    {
        if (_fixedWords is not null || _rules.Changes.Count > 0 || !Utf8.IsValid(utf8))
        {
            Encode(Encoding.UTF8.GetString(utf8), into);
            return;
        }
        Workspace workspace = Rent();
        EncodeWords(utf8, into, workspace);
        Return(workspace);
    }

    private int FixedWord(ReadOnlySpan<char> text, out int id)
    {
        foreach (string word in _fixedByLength)
        {
            if (!text.StartsWith(word, StringComparison.Ordinal)) continue;
            id = _rules.FixedWords[word];
            return word.Length;
        }
        throw new InvalidOperationException("no fixed word begins where one was found");
    }

    private void EncodePart(ReadOnlySpan<char> text, List<int> into)
    {
        if (text.IsEmpty) return;
        if (_rules.Changes.Count > 0)
        {
            string changed = text.ToString();
            foreach (TextChange change in _rules.Changes) changed = change.Apply(changed);
            text = changed;
        }
        Workspace workspace = Rent();
        EncodeWords(workspace.Utf8(text), into, workspace);
        Return(workspace);
    }

    private void EncodeWords(ReadOnlySpan<byte> text, List<int> into, Workspace workspace)
    {
        IdWriter ids = new(into, expected: (text.Length / 4) + 16);
        WordCache cache = workspace.Cache;
        WordPattern pattern = _rules.Pattern;
        for (int start = 0, end; start < text.Length; start = end)
        {
            end = _boundary is null ? WordSplitter.End(pattern, text, start) : NextBoundary(text, start, _boundary);
            int length = end - start;
            if (length <= WordKey.Longest)
            {
                ids.Reserve(WordKey.Longest);
                WordKey key = WordKey.Of(text, start, length);
                int count = cache.Find(key, length, ref ids.Next);
                if (count == 0)
                {
                    Span<int> room = ids.Room(length);
                    count = EncodeWord(text.Slice(start, length), room, workspace);
                    if (count <= WordCache.MostIds) cache.Add(key, length, room[..count]);
                }
                ids.Advance(count);
            }
            else
            {
                ids.Reserve(length);
                ids.Advance(EncodeWord(text.Slice(start, length), ids.Room(length), workspace));
            }
        }
        ids.Complete();
    }

    /// <returns>How many ids it has.</returns>
    /// <param name="ids">Room for as many as the word has bytes.</param>
    private int EncodeWord(ReadOnlySpan<byte> word, Span<int> ids, Workspace workspace)
    {
        if (_rules.WholeWords && _tokens!.TryFind(word, out ids[0])) return 1;
        Span<int> symbols = ids[..(_rules.Characters ? Characters(word, ids) : Bytes(word, ids))];
        return _rules.Ranked ? workspace.Merging.Merge(symbols, new RankRules(_tokens!, word)) : workspace.Merging.Merge(symbols, _pairs);
    }

    private int Bytes(ReadOnlySpan<byte> bytes, Span<int> ids)
    {
        for (int i = 0; i < bytes.Length; i++) ids[i] = _byteIds[bytes[i]];
        return bytes.Length;
    }

    private int Characters(ReadOnlySpan<byte> bytes, Span<int> ids)
    {
        int count = 0;
        for (int length; bytes.Length > 0; bytes = bytes[length..])
        {
            Rune.DecodeFromUtf8(bytes, out Rune character, out length);
            if (_characters.TryGetValue(character, out int id)) ids[count++] = id;
            else count += Bytes(bytes[..length], ids[count..]);
        }
        return count;
    }

    private void FindCharacters(Vocabulary vocabulary)
    {
        HashSet<int> others = [.. vocabulary.SpecialTokens.Values, .. vocabulary.ByteIds];
        for (int id = 0; id < vocabulary.Tokens.Length; id++)
        {
            if (others.Contains(id)) continue;
            string text = vocabulary.Written[id];
            if (Rune.DecodeFromUtf16(text, out Rune character, out int length) == OperationStatus.Done && length == text.Length) _characters.Add(character, id);
        }
    }

    private static IEnumerable<int> OrdinaryIds(Vocabulary vocabulary)
    {
        HashSet<int> specials = [.. vocabulary.SpecialTokens.Values];
        return Enumerable.Range(0, vocabulary.Tokens.Length).Where(id => !specials.Contains(id));
    }

    /// <summary>The character for a space, where no token reaches from something else into one. Then text that is not cut by its rules can
    /// be cut there without changing an id, which keeps words short and lets them be remembered.</summary>
    private static byte[]? Boundary(Vocabulary vocabulary)
    {
        TextRules rules = vocabulary.Rules;
        bool marks = rules.Changes.Any(change => change.To.Contains(WordSplitter.SpaceMark, StringComparison.Ordinal));
        // A token that is a whole word may reach anywhere, and of a mark beyond ASCII a token may have some of the bytes.
        if (rules.WholeWords || (!rules.Characters && marks)) return null;
        byte[] mark = Encoding.UTF8.GetBytes(marks ? WordSplitter.SpaceMark : " ");
        foreach (Merge merge in vocabulary.Merges)
        {
            byte[] token = rules.Characters ? Encoding.UTF8.GetBytes(vocabulary.Written[merge.Result]) : vocabulary.Tokens[merge.Result];
            if (NextBoundary(token, 0, mark) < token.Length) return null;
        }
        return mark;
    }

    /// <summary>Where a mark next follows another character.</summary>
    private static int NextBoundary(ReadOnlySpan<byte> text, int start, ReadOnlySpan<byte> mark)
    {
        int from = start;
        while (text[from..].StartsWith(mark)) from += mark.Length;
        int length = text[from..].IndexOf(mark);
        return length < 0 ? text.Length : from + length;
    }

    private Workspace Rent()
    {
        int own = Environment.CurrentManagedThreadId;
        for (int i = 0; i < _idle.Length; i++)
            if (Interlocked.Exchange(ref _idle[(own + i) % _idle.Length], null) is { } workspace) return workspace;
        return new Workspace();
    }

    private void Return(Workspace workspace)
    {
        int own = Environment.CurrentManagedThreadId;
        for (int i = 0; i < _idle.Length; i++)
            if (Interlocked.CompareExchange(ref _idle[(own + i) % _idle.Length], workspace, null) is null) return;
    }

    /// <summary>What one thread needs while it encodes a text.</summary>
    private sealed class Workspace
    {
        private const int Smallest = 1 << 12, Kept = 1 << 20;
        private byte[] _utf8 = [];

        public WordCache Cache { get; } = new();

        public PairMerging Merging { get; } = new();

        /// <summary>The text in UTF-8, until the next one.</summary>
        public ReadOnlySpan<byte> Utf8(ReadOnlySpan<char> text)
        {
            // Three bytes for each are the most; counting them is needed only where that is much.
            int most = text.Length <= Smallest / 3 ? Smallest : Encoding.UTF8.GetByteCount(text);
            byte[] buffer = _utf8;
            if (buffer.Length < most)
            {
                buffer = GC.AllocateUninitializedArray<byte>(Math.Max(most, Math.Min(2 * buffer.Length, Kept)));
                if (buffer.Length <= Kept) _utf8 = buffer;
            }
            return buffer.AsSpan(0, Encoding.UTF8.GetBytes(text, buffer));
        }
    }
}
