using System.Buffers;
using System.Collections.Concurrent;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>Text to ids by a vocabulary's rules: change the text, cut it into words, begin each as bytes or characters, merge. Words met
/// before are remembered. Safe for concurrent use.</summary>
internal sealed class TextEncoder
{
    /// <summary>Bounds of the memory of words already encoded. Longer words are rare and would fill it.</summary>
    private const int RememberedWords = 1 << 17, RememberedLength = 32;

    private const int OnStack = 256;

    private readonly TextRules _rules;
    private readonly PairTable _pairs;
    private readonly int[] _byteIds;
    private readonly Dictionary<Rune, int> _characters = [];
    private readonly Dictionary<byte[], int>.AlternateLookup<ReadOnlySpan<byte>>? _wholeWords;
    private readonly SearchValues<string>? _fixedWords;
    private readonly string[] _fixedByLength = [];
    private readonly char? _boundary;
    private readonly ConcurrentDictionary<string, int[]> _remembered = new();
    private readonly ConcurrentDictionary<string, int[]>.AlternateLookup<ReadOnlySpan<char>> _lookup;
    private int _rememberedCount;

    public TextEncoder(Vocabulary vocabulary)
    {
        _rules = vocabulary.Rules;
        _pairs = new PairTable(vocabulary.Merges);
        _byteIds = vocabulary.ByteIds;
        _lookup = _remembered.GetAlternateLookup<ReadOnlySpan<char>>();
        if (_rules.Characters) FindCharacters(vocabulary);
        if (_rules.Pattern == WordPattern.Whole) _boundary = Boundary(vocabulary);
        if (_rules.WholeWords) _wholeWords = WholeWords(vocabulary).GetAlternateLookup<ReadOnlySpan<byte>>();
        if (_rules.FixedWords.Count == 0) return;
        _fixedWords = SearchValues.Create([.. _rules.FixedWords.Keys], StringComparison.Ordinal);
        _fixedByLength = [.. _rules.FixedWords.Keys.OrderByDescending(word => word.Length)];
    }

    /// <summary>Appends the ids of the text.</summary>
    public void Encode(string text, List<int> into)
    {
        int start = 0;
        if (_fixedWords is not null)
        {
            while (start < text.Length && text.AsSpan(start).IndexOfAny(_fixedWords) is >= 0 and int skipped)
            {
                int at = start + skipped;
                EncodePlain(text[start..at], into);
                string word = _fixedByLength.First(candidate => text.AsSpan(at).StartsWith(candidate, StringComparison.Ordinal));
                into.Add(_rules.FixedWords[word]);
                start = at + word.Length;
            }
        }
        EncodePlain(start == 0 ? text : text[start..], into);
    }

    private void EncodePlain(string text, List<int> into)
    {
        if (text.Length == 0) return;
        foreach (TextChange change in _rules.Changes) text = change.Apply(text);
        for (int start = 0; start < text.Length;)
        {
            int end = _boundary is { } mark ? NextBoundary(text, start, mark) : WordSplitter.End(_rules.Pattern, text, start);
            ReadOnlySpan<char> word = text.AsSpan(start, end - start);
            if (_lookup.TryGetValue(word, out int[]? ids)) into.AddRange(ids.AsSpan());
            else EncodeWord(word, into);
            start = end;
        }
    }

    private void EncodeWord(ReadOnlySpan<char> word, List<int> into)
    {
        int most = Encoding.UTF8.GetMaxByteCount(word.Length);
        Span<byte> bytes = most <= OnStack ? stackalloc byte[OnStack] : new byte[most];
        // Half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD here.
        bytes = bytes[..Encoding.UTF8.GetBytes(word, bytes)];
        Span<int> ids = bytes.Length <= OnStack ? stackalloc int[OnStack] : new int[bytes.Length];
        if (_wholeWords is { } whole && whole.TryGetValue(bytes, out ids[0])) ids = ids[..1];
        else ids = ids[..PairMerging.Merge(ids[..(_rules.Characters ? Characters(bytes, ids) : Bytes(bytes, ids))], _pairs)];
        into.AddRange((ReadOnlySpan<int>)ids);
        if (word.Length > RememberedLength || Volatile.Read(ref _rememberedCount) >= RememberedWords) return;
        if (_remembered.TryAdd(word.ToString(), ids.ToArray())) Interlocked.Increment(ref _rememberedCount);
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

    private static Dictionary<byte[], int> WholeWords(Vocabulary vocabulary)
    {
        HashSet<int> specials = [.. vocabulary.SpecialTokens.Values];
        Dictionary<byte[], int> words = new(ByteSpelling.Comparer);
        for (int id = 0; id < vocabulary.Tokens.Length; id++)
            if (vocabulary.Tokens[id].Length > 0 && !specials.Contains(id)) words.TryAdd(vocabulary.Tokens[id], id);
        return words;
    }

    /// <summary>The character for a space, where no token reaches from something else into one. Then text that is not cut by its rules can
    /// be cut there without changing an id, which keeps words short and lets them be remembered.</summary>
    private static char? Boundary(Vocabulary vocabulary)
    {
        TextRules rules = vocabulary.Rules;
        char mark = rules.Changes.Any(change => change.To.Contains(WordSplitter.SpaceMark, StringComparison.Ordinal)) ? WordSplitter.SpaceMark : ' ';
        // A token that is a whole word may reach anywhere, and of a mark beyond ASCII a token may have some of the bytes.
        if (rules.WholeWords || (!rules.Characters && mark != ' ')) return null;
        foreach (Merge merge in vocabulary.Merges)
        {
            string text = rules.Characters ? vocabulary.Written[merge.Result] : Encoding.Latin1.GetString(vocabulary.Tokens[merge.Result]);
            if (NextBoundary(text, 0, mark) < text.Length) return null;
        }
        return mark;
    }

    /// <summary>Where a mark next follows another character.</summary>
    private static int NextBoundary(string text, int start, char mark)
    {
        for (int i = start + 1; i < text.Length; i++)
            if (text[i] == mark && text[i - 1] != mark) return i;
        return text.Length;
    }
}
