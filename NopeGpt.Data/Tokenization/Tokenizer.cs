using System.Buffers;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>Text to ids and back by byte-pair encoding: tokenizers trained here, Hugging Face's tokenizer.json (byte-level, or characters with
/// bytes for the rest), OpenAI's published encodings by name, and llama2.c's. Any text can be encoded. Where the tokenizer itself does not change
/// the text, decoding gives it back exactly (half a surrogate pair, which UTF-8 cannot hold, becomes U+FFFD). Safe for concurrent use.</summary>
public sealed class Tokenizer
{
    /// <summary>The special token that ends a document in the tokenizers trained here and in OpenAI's.</summary>
    public const string EndOfText = "<|endoftext|>";

    /// <summary>The name of a tokenizer's file in a model's, a data set's or a tokenizer's folder.</summary>
    public const string FileName = "tokenizer.json";

    /// <summary>What to do where a model has no tokenizer: the end of a sentence.</summary>
    public const string MissingCure = "put there the tokenizer.json that came with the model; for a GPT-2 or NoPE GPT a file with {\"name\": \"r50k_base\"} and beside it "
        + "r50k_base.tiktoken; for a llama2.c model its tokenizer.bin, converted by importing the two together";

    /// <summary>A model's vocabulary may have rows beyond the tokenizer's, which are no text: models round theirs up to such multiples.</summary>
    private const int MostPadding = 1024;

    private readonly Vocabulary _vocabulary;
    private readonly TextEncoder _encoder;
    private readonly Lazy<(SearchValues<string> Search, string[] ByLength)> _specials;

    internal Tokenizer(Vocabulary vocabulary) : this(vocabulary, new TextEncoder(vocabulary))
    {
    }

    private Tokenizer(Vocabulary vocabulary, TextEncoder encoder)
    {
        (_vocabulary, _encoder) = (vocabulary, encoder);
        Hash = vocabulary.Hash();
        _specials = new(() => (SearchValues.Create([.. SpecialTokens.Keys], StringComparison.Ordinal), [.. SpecialTokens.Keys.OrderByDescending(special => special.Length)]));
        StopIds = BeginningId is { } beginning && beginning != EndOfTextId ? [EndOfTextId, beginning] : [EndOfTextId];
    }

    /// <summary>Number of ids, special tokens included; ids are 0 to this less one.</summary>
    public int VocabularySize => _vocabulary.Tokens.Length;

    /// <summary>The special token that ends a document: &lt;|endoftext|>, &lt;/s> or as the tokenizer has it.</summary>
    public int EndOfTextId => _vocabulary.EndOfTextId;

    /// <summary>The special token that every text for the model begins with (BOS), or null for a tokenizer that asks for none. Encoding does not add it.</summary>
    public int? BeginningId => _vocabulary.BeginningId;

    /// <summary>What comes before the first token of a document: BOS, or, without one, the end of the document before it.</summary>
    public int DocumentStartId => BeginningId ?? EndOfTextId;

    /// <summary>Ids that end a text when a model writes them: end of text, and BOS, which would begin another.</summary>
    public IReadOnlyList<int> StopIds { get; }

    /// <summary>SHA-256 of the tokenizer's content, 64 lower-case hexadecimal digits; saving and loading do not change it.</summary>
    public string Hash { get; }

    /// <summary>Ids of the special tokens by their text.</summary>
    public IReadOnlyDictionary<string, int> SpecialTokens => _vocabulary.SpecialTokens;

    /// <summary>The published encoding that this is (r50k_base), or null. What <see cref="Save"/> writes of one is only its name.</summary>
    public string? PublishedName => _vocabulary.Encoding;

    /// <summary>How it makes tokens, in a few words: "byte-level BPE".</summary>
    public string Kind =>
        _vocabulary.Encoding is not null ? "published byte-level BPE"
        : _vocabulary.Rules.Characters ? "BPE over characters, bytes for the rest"
        : _vocabulary.Rules.Pattern == WordPattern.Gpt2 ? "byte-level BPE, GPT-2's words" : "byte-level BPE";

    internal Vocabulary Vocabulary => _vocabulary;

    /// <summary>Loads a tokenizer: from its folder (<see cref="FileIn"/>); from a file, which may be tokenizer.json, GPT-2's encoder.json or vocab.bpe with the
    /// other beside it, llama2.c's tokenizer.bin or a published NAME.tiktoken; or by name, which is that of a published encoding (cl100k_base and o200k_base come with the program) or of a
    /// tokenizer's folder in one of the places.</summary>
    /// <param name="places">Where the .tiktoken file of an encoding that is only named may lie besides its own folder: files or folders, which need
    /// not exist. It is recognised by its content, whatever its name.</param>
    /// <param name="download">Fetches that file where it is in none of them; null where nothing may be fetched.</param>
    /// <exception cref="FileNotFoundException">There is none, or the file of a named encoding is nowhere; the message says what to put where.</exception>
    /// <exception cref="InvalidDataException">The file is damaged, or asks for something that is not understood; one sentence with file, field, reason and cure.</exception>
    public static Tokenizer Load(string path, IReadOnlyList<string>? places = null, EncodingDownload? download = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        if (!Path.Exists(path) && PublishedEncoding.Find(path) is not null) return new Tokenizer(PublishedEncoding.Named(path, null, places ?? [], download));
        if (!Path.Exists(path) && Path.GetFileName(path) == path) path = (places ?? []).Select(place => Path.Combine(place, path)).FirstOrDefault(place => File.Exists(Path.Combine(place, FileName)), path);
        string file = Directory.Exists(path) ? FileIn(path) ?? throw new FileNotFoundException($"The folder {path} has no {FileName}; {MissingCure}.", Path.Combine(path, FileName)) : path;
        if (!File.Exists(file))
            throw new FileNotFoundException($"The tokenizer {file} does not exist: give the folder or the file of one, the name of one in the store, or one of the encodings {PublishedEncoding.Names}.", file);
        if (Gpt2Files.With(file) is var (vocabulary, merges)) return new Tokenizer(Gpt2Files.Read(vocabulary, merges));
        return new Tokenizer(Path.GetExtension(file).ToLowerInvariant() switch
        {
            ".bin" => Llama2cTokenizer.Read(file),
            ".tiktoken" => PublishedEncoding.Read(file),
            ".model" => throw new InvalidDataException($"The tokenizer {file} is a SentencePiece model, which is not read; save it as {FileName} with Hugging Face's transformers and give that."),
            _ => TokenizerJson.Read(file, places ?? [], download),
        });
    }

    /// <summary>The names of the published encodings.</summary>
    public static IReadOnlyList<string> Published { get; } = [.. PublishedEncoding.All.Select(encoding => encoding.Name)];

    /// <summary>True for the name of a published encoding, unless a file or folder is called so.</summary>
    public static bool IsPublished(string name) => !Path.Exists(name) && PublishedEncoding.Find(name) is not null;

    /// <summary>The names that <see cref="Load"/> knows: those of the published encodings, whose files it may still have to fetch, and of the tokenizers' folders in the places.</summary>
    public static IReadOnlyList<string> Names(IReadOnlyList<string> places)
    {
        ArgumentNullException.ThrowIfNull(places);
        IEnumerable<string> folders = places.Where(Directory.Exists).SelectMany(Directory.EnumerateDirectories).Where(folder => File.Exists(Path.Combine(folder, FileName)));
        // A name with a leading dot is one that is still being made.
        return [.. Published.Concat(folders.Select(folder => Path.GetFileName(folder)).Where(name => name[0] != '.').Order(StringComparer.Ordinal)).Distinct()];
    }

    /// <summary>The file by which the tokenizer in a folder is loaded: tokenizer.json, or GPT-2's encoder.json with vocab.bpe (also named vocab.json and
    /// merges.txt). Null where there is none.</summary>
    public static string? FileIn(string folder) =>
        File.Exists(Path.Combine(folder, FileName)) ? Path.Combine(folder, FileName) : Gpt2Files.In(folder)?.Vocabulary;

    /// <summary>The tokenizer as a model of this vocabulary uses it: a published encoding gets the four chat markers of NoPE GPT
    /// (&lt;|im_start|>, &lt;|im_end|>, &lt;tool_call>, &lt;/tool_call>) when the model has exactly so many tokens more.</summary>
    /// <param name="modelVocabulary">Tokens that the model knows, padding included.</param>
    /// <param name="folder">The model's, for the message.</param>
    /// <exception cref="InvalidDataException">The sizes are not those of one model: the model has fewer tokens, or more than padding explains. A llama2.c file has
    /// exactly those of its model; with fewer it was cut.</exception>
    public Tokenizer ForModel(int modelVocabulary, string folder)
    {
        if (_vocabulary.Encoding is not null && PublishedEncoding.WithChatMarkers(_vocabulary) is { } chat && chat.Tokens.Length == modelVocabulary) return new Tokenizer(chat, _encoder);
        int padding = _vocabulary.IsExact ? 1 : MostPadding;
        if (VocabularySize <= modelVocabulary && modelVocabulary - VocabularySize < padding) return this;
        throw new InvalidDataException($"{folder} cannot be used: its tokenizer has {VocabularySize} tokens and its model {modelVocabulary}; take the two of one model.");
    }

    /// <summary>The tokenizer with those of the four chat markers of NoPE GPT that it lacks as special tokens after its last id; itself where it
    /// has all of them. Saved, a published encoding keeps only its name, and <see cref="ForModel"/> finds the markers again.</summary>
    public Tokenizer WithChatMarkers()
    {
        Vocabulary chat = PublishedEncoding.WithChatMarkers(_vocabulary);
        return chat.Tokens.Length == VocabularySize ? this : new Tokenizer(chat, _encoder);
    }

    /// <summary>Writes tokenizer.json into the folder, aside first and then renamed: the file that it was loaded from, or, for llama2.c's and
    /// GPT-2's own files, the same as a tokenizer.json.</summary>
    public void Save(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        using AsideFile aside = new(Path.Combine(folder, FileName));
        if (_vocabulary.Source is { } source) aside.Stream.Write(source);
        else TokenizerJson.Write(_vocabulary, aside.Stream);
        aside.Complete();
    }

    /// <summary>The ids of ordinary text: the text of a special token in it never becomes the special id.</summary>
    public List<int> Encode(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<int> ids = new((text.Length / 3) + 1);
        _encoder.Encode(text, ids);
        return ids;
    }

    /// <summary>As <see cref="Encode(string)"/>, appending.</summary>
    public void Encode(string text, List<int> into)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(into);
        _encoder.Encode(text, into);
    }

    /// <summary>As <see cref="Encode(string, List{int})"/>, but the text of a special token becomes its id: the longest where several begin at one place. Only
    /// for text that may say so, never for a user's.</summary>
    public void EncodeWithSpecials(string text, List<int> into)
    {
        ArgumentNullException.ThrowIfNull(text);
        ArgumentNullException.ThrowIfNull(into);
        ReadOnlySpan<char> rest = text;
        while (rest.IndexOfAny(_specials.Value.Search) is >= 0 and int at)
        {
            _encoder.Encode(rest[..at], into);
            string special = "";
            foreach (string candidate in _specials.Value.ByLength)
            {
                if (!rest[at..].StartsWith(candidate, StringComparison.Ordinal)) continue;
                special = candidate;
                break;
            }
            into.Add(SpecialTokens[special]);
            rest = rest[(at + special.Length)..];
        }
        _encoder.Encode(rest, into);
    }

    /// <summary>As <see cref="Encode(string)"/> for UTF-8, appending: the quickest way. What is not valid in it becomes U+FFFD. Once the list has room
    /// and the calling thread has encoded a few texts, nothing is allocated.</summary>
    public void Encode(ReadOnlySpan<byte> utf8, List<int> into)
    {
        ArgumentNullException.ThrowIfNull(into);
        _encoder.Encode(utf8, into);
    }

    /// <summary>The text of the ids, which are those of a text from its beginning; bytes that are not UTF-8 become U+FFFD, special tokens their text.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such id.</exception>
    public string Decode(IEnumerable<int> ids)
    {
        ArgumentNullException.ThrowIfNull(ids);
        List<byte> bytes = [];
        int? before = null;
        foreach (int id in ids)
        {
            bytes.AddRange(BytesAfter(before, id));
            before = id;
        }
        return Encoding.UTF8.GetString([.. bytes]);
    }

    /// <summary>The bytes of a token, for a special token the UTF-8 of its text. An id that the vocabulary leaves free has none.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such id.</exception>
    public ReadOnlySpan<byte> Bytes(int id) => (uint)id < (uint)_vocabulary.Tokens.Length
        ? _vocabulary.Tokens[id]
        : throw new ArgumentOutOfRangeException(nameof(id), id, $"The id {id} is not in the vocabulary of {_vocabulary.Tokens.Length} tokens.");

    /// <summary>As <see cref="Bytes"/>, without the space that encoding puts before a text when the token is the first of one.</summary>
    /// <param name="before">The id before it; null where there is none.</param>
    internal ReadOnlySpan<byte> BytesAfter(int? before, int id)
    {
        ReadOnlySpan<byte> bytes = Bytes(id);
        bool first = before is null || before == BeginningId;
        return first && _vocabulary.Rules.StripsSpace && bytes is [(byte)' ', ..] && !SpecialTokens.Values.Contains(id) ? bytes[1..] : bytes;
    }
}
