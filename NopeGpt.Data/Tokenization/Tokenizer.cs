using System.Collections.Concurrent;
using System.Text;
using Microsoft.ML.Tokenizers;

namespace NopeGpt.Data.Tokenization;

/// <summary>Text to ids and back: byte-level byte-pair encoding, saved as the tokenizer.json of Hugging Face's tokenizers.
/// Any text can be encoded, and decoding gives it back exactly (half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD).
/// Safe for concurrent use.</summary>
public sealed class Tokenizer
{
    /// <summary>The special token that every tokenizer of ours has: it ends a document.</summary>
    public const string EndOfText = "<|endoftext|>";

    /// <summary>Bounds of the memory of words already encoded. Longer words are rare and would fill it.</summary>
    private const int RememberedWords = 1 << 17, RememberedLength = 32;

    private readonly Vocabulary _vocabulary;
    private readonly BpeTokenizer _merger;
    private readonly ConcurrentDictionary<string, int[]> _remembered = new();
    private readonly ConcurrentDictionary<string, int[]>.AlternateLookup<ReadOnlySpan<char>> _lookup;
    private int _rememberedCount;

    internal Tokenizer(Vocabulary vocabulary)
    {
        _vocabulary = vocabulary;
        _lookup = _remembered.GetAlternateLookup<ReadOnlySpan<char>>();
        string[] texts = [.. vocabulary.Tokens.Select(token => ByteAlphabet.ToText(token))];
        HashSet<int> specials = [.. vocabulary.SpecialTokens.Values];
        // The library must not know the special tokens: it would find them in ordinary text. Words are cut here (WordSplitter), not there.
        _merger = BpeTokenizer.Create(new BpeOptions(texts.Select((text, id) => KeyValuePair.Create(text, id)).Where(token => !specials.Contains(token.Value)))
        {
            Merges = vocabulary.Merges.Select(merge => $"{texts[merge.Left]} {texts[merge.Right]}"),
            ByteLevel = true,
        });
        Hash = vocabulary.Hash();
        EndOfTextId = vocabulary.SpecialTokens[EndOfText];
    }

    /// <summary>Number of ids, special tokens included; ids are 0 to this less one.</summary>
    public int VocabularySize => _vocabulary.Tokens.Length;

    public int EndOfTextId { get; }

    /// <summary>SHA-256 of the tokenizer's content, 64 lower-case hexadecimal digits; saving and loading do not change it.</summary>
    public string Hash { get; }

    /// <summary>Ids of the special tokens by their text.</summary>
    public IReadOnlyDictionary<string, int> SpecialTokens => _vocabulary.SpecialTokens;

    internal Vocabulary Vocabulary => _vocabulary;

    /// <summary>Loads a tokenizer from its tokenizer.json or from the folder that holds it.</summary>
    /// <exception cref="FileNotFoundException">There is none.</exception>
    /// <exception cref="InvalidDataException">The file is damaged or is not a tokenizer of this kind; one sentence with file, reason and cure.</exception>
    public static Tokenizer Load(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        string file = Directory.Exists(path) ? Path.Combine(path, TokenizerJson.FileName) : path;
        if (!File.Exists(file)) throw new FileNotFoundException($"The tokenizer {file} does not exist; train a tokenizer or give the folder of one.", file);
        return new Tokenizer(TokenizerJson.Read(file));
    }

    /// <summary>Writes tokenizer.json into the folder, aside first and then renamed.</summary>
    public void Save(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        TokenizerJson.Write(_vocabulary, Path.Combine(folder, TokenizerJson.FileName));
    }

    /// <summary>The ids of ordinary text: the text of a special token in it never becomes the special id.</summary>
    public List<int> Encode(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<int> ids = new((text.Length / 3) + 1);
        Encode(text, ids);
        return ids;
    }

    /// <summary>As <see cref="Encode(string)"/>, appending.</summary>
    public void Encode(string text, List<int> into)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(into);
        for (int start = 0; start < text.Length;)
        {
            int end = WordSplitter.End(text, start);
            ReadOnlySpan<char> word = text.AsSpan(start, end - start);
            into.AddRange(_lookup.TryGetValue(word, out int[]? ids) ? ids.AsSpan() : EncodeWord(word));
            start = end;
        }
    }

    /// <summary>The text of the ids; bytes that are not UTF-8 become U+FFFD, special tokens their text.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such id.</exception>
    public string Decode(IEnumerable<int> ids)
    {
        ArgumentNullException.ThrowIfNull(ids);
        List<byte> bytes = [];
        foreach (int id in ids) bytes.AddRange(Bytes(id));
        return Encoding.UTF8.GetString([.. bytes]);
    }

    /// <summary>The bytes of a token, for a special token the UTF-8 of its text.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such id.</exception>
    public ReadOnlySpan<byte> Bytes(int id) => (uint)id < (uint)_vocabulary.Tokens.Length
        ? _vocabulary.Tokens[id]
        : throw new ArgumentOutOfRangeException(nameof(id), id, $"The id {id} is not in the vocabulary of {_vocabulary.Tokens.Length} tokens.");

    private int[] EncodeWord(ReadOnlySpan<char> word)
    {
        string text = word.ToString();
        // The library would drop half a surrogate pair; in UTF-8 it is U+FFFD.
        string whole = text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF') ? Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text)) : text;
        int[] ids = [.. _merger.EncodeToIds(whole, considerPreTokenization: false, considerNormalization: false)];
        if (text.Length <= RememberedLength && Volatile.Read(ref _rememberedCount) < RememberedWords && _remembered.TryAdd(text, ids)) Interlocked.Increment(ref _rememberedCount);
        return ids;
    }
}
