using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>The distinct words of a text with how often they occur; memory grows with the distinct ones only. Open addressing, at most five eighths full.</summary>
internal sealed class WordCounts(WordPattern pattern)
{
    /// <summary>Words between two looks at the cancellation.</summary>
    private const int CancelEvery = 1 << 16;

    private const int FirstBits = 12;

    private byte[] _utf8 = [];
    private byte[] _long = new byte[1 << 12];
    private int _longUsed, _shift = 64 - FirstBits;
    private Word[] _words = new Word[1 << FirstBits];

    /// <summary>Distinct words.</summary>
    public int Count { get; private set; }

    /// <summary>Of the documents so far.</summary>
    public long Bytes { get; private set; }

    public void Add(string document, CancellationToken cancel)
    {
        int size = Encoding.UTF8.GetByteCount(document);
        if (_utf8.Length < size) _utf8 = new byte[size];
        ReadOnlySpan<byte> text = _utf8.AsSpan(0, Encoding.UTF8.GetBytes(document, _utf8));
        Bytes += text.Length;
        int untilCheck = 0;
        for (int start = 0, end; start < text.Length; start = end)
        {
            if (untilCheck-- == 0)
            {
                cancel.ThrowIfCancellationRequested();
                untilCheck = CancelEvery;
            }
            end = WordSplitter.End(pattern, text, start);
            int length = end - start;
            ref Word word = ref length <= WordKey.Longest ? ref Find(WordKey.Of(text, start, length), length) : ref FindLong(text[start..end]);
            word.Count++;
        }
    }

    /// <summary>Calls with the bytes and the count of each.</summary>
    public void Each(Action<ReadOnlySpan<byte>, long> visit)
    {
        Span<byte> bytes = stackalloc byte[WordKey.Longest];
        foreach (Word word in _words)
        {
            if (word.Count == 0) continue;
            if (word.Length <= WordKey.Longest)
            {
                word.Key.CopyTo(bytes);
                visit(bytes[..word.Length], word.Count);
            }
            else visit(_long.AsSpan(word.Start, word.Length), word.Count);
        }
    }

    private ref Word Find(WordKey key, int length)
    {
        int at = (int)(key.Hash(length) >> _shift);
        while (true)
        {
            ref Word word = ref _words[at];
            if (word.Key == key && word.Length == length) return ref word;
            if (word.Length == 0)
            {
                if (Grew()) return ref Find(key, length);
                (word.Key, word.Length) = (key, length);
                return ref word;
            }
            at = (at + 1) & (_words.Length - 1);
        }
    }

    private ref Word FindLong(ReadOnlySpan<byte> bytes)
    {
        ulong hash = WordKey.Hash(bytes);
        int at = (int)(hash >> _shift);
        while (true)
        {
            ref Word word = ref _words[at];
            if (word.Key.Low == hash && word.Length == bytes.Length && bytes.SequenceEqual(_long.AsSpan(word.Start, word.Length))) return ref word;
            if (word.Length == 0)
            {
                if (Grew()) return ref FindLong(bytes);
                (word.Key, word.Length, word.Start) = (new(hash, 0), bytes.Length, Keep(bytes));
                return ref word;
            }
            at = (at + 1) & (_words.Length - 1);
        }
    }

    /// <summary>Counts one more distinct word. True where that took a larger table, in which its place is another.</summary>
    private bool Grew()
    {
        if (Count + 1 <= _words.Length / 8 * 5)
        {
            Count++;
            return false;
        }
        Word[] old = _words;
        _words = new Word[2 * old.Length];
        _shift--;
        foreach (Word word in old)
        {
            if (word.Length == 0) continue;
            int at = (int)((word.Length <= WordKey.Longest ? word.Key.Hash(word.Length) : word.Key.Low) >> _shift);
            while (_words[at].Length != 0) at = (at + 1) & (_words.Length - 1);
            _words[at] = word;
        }
        return true;
    }

    private int Keep(ReadOnlySpan<byte> bytes)
    {
        if (_long.Length - _longUsed < bytes.Length) Array.Resize(ref _long, (int)Math.Min(Array.MaxLength, Math.Max(2L * _long.Length, (long)_longUsed + bytes.Length)));
        bytes.CopyTo(_long.AsSpan(_longUsed));
        _longUsed += bytes.Length;
        return _longUsed - bytes.Length;
    }

    /// <summary>A word: its bytes as key, or, for a long one, its hash and where its bytes are. A length of 0 is a free place.</summary>
    private struct Word
    {
        public WordKey Key;
        public int Length, Start;
        public long Count;
    }
}
