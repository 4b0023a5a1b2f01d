using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace NopeGpt.Data.Tokenization;

/// <summary>OpenAI's published encodings: a .tiktoken file with the rank of every token, recognised by its SHA-256, and, by name, the pattern
/// and the special tokens that belong to it.</summary>
/// <param name="Bytes">Length of the file.</param>
internal sealed record PublishedEncoding(string Name, string Sha256, long Bytes, WordPattern Pattern, IReadOnlyDictionary<string, int> SpecialTokens)
{
    /// <summary>The package that brings the file along; null where it must be given.</summary>
    private string? Package { get; init; }

    /// <summary>The hash of the tokenizer (<see cref="Tokenizer.Hash"/>), so that it is known without loading it.</summary>
    public required string Hash { get; init; }

    /// <summary>Its ids; 0 where the last one is a special token.</summary>
    private int Size { get; init; }

    /// <summary>The markers of NoPE GPT's chat models, appended to an encoding in this order.</summary>
    public static readonly IReadOnlyList<string> ChatMarkers = ["<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"];

    /// <summary>Their tokens have at most 128 bytes.</summary>
    private const int LongestToken = 256;

    public static IReadOnlyList<PublishedEncoding> All => _all;

    private static readonly PublishedEncoding[] _all =
    [
        new("r50k_base", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", 835_554, WordPattern.Gpt2, Specials((Tokenizer.EndOfText, 50256))) { Hash = "155fe9b7007571315195a5a1bc193db140321038e4cc908f708a284cc7bafbfe" },
        new("p50k_base", "94b5ca7dff4d00767bc256fdd1b27e5b17361d7b8a5f968547f9f23eb70d2069", 836_186, WordPattern.Gpt2, Specials((Tokenizer.EndOfText, 50256))) { Hash = "771d50ccd54baf7d37e0fcbebf21b0e183bb0f38cd581768e82b5745a1ac89ff", Size = 50281 },
        new("cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7", 1_681_126, WordPattern.Cl100k,
            Specials((Tokenizer.EndOfText, 100257), ("<|fim_prefix|>", 100258), ("<|fim_middle|>", 100259), ("<|fim_suffix|>", 100260), ("<|endofprompt|>", 100276)))
            { Package = "Microsoft.ML.Tokenizers.Data.Cl100kBase", Hash = "aade72c88d53893ce07c1256514af19a7e4791c375fd598fb77ed7b944f903f0" },
        new("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d", 3_613_922, WordPattern.O200k,
            Specials((Tokenizer.EndOfText, 199999), ("<|endofprompt|>", 200018)))
            { Package = "Microsoft.ML.Tokenizers.Data.O200kBase", Hash = "2dd1bd34002522789dbb1c446978071ec38c2072cc9bee4fe4a09bbe582cfd48" },
    ];

    public static string Names => string.Join(", ", _all.Select(encoding => encoding.Name));

    public string FileName => $"{Name}.tiktoken";

    /// <summary>A .tiktoken file by itself.</summary>
    /// <exception cref="InvalidDataException">It is none of the published ones.</exception>
    public static Vocabulary Read(string file)
    {
        byte[] content = File.ReadAllBytes(file);
        PublishedEncoding encoding = _all.FirstOrDefault(known => known.Is(content))
            ?? throw new InvalidDataException($"The tokenizer {file} is none of the published encodings {Names}: its SHA-256 is {Convert.ToHexStringLower(SHA256.HashData(content))}; download it again.");
        return encoding.Parse(content);
    }

    public static PublishedEncoding? Find(string name) => _all.FirstOrDefault(known => known.Name == name);

    /// <summary>The encoding of that name: from its package, its file in the places, or its file downloaded.</summary>
    /// <param name="tokenizerFile">The tokenizer.json that names it, beside which its file is looked for first; null for a name by itself.</param>
    /// <param name="places">Files and folders; folders are searched with their subfolders of the first level.</param>
    /// <param name="download">Null where nothing may be fetched.</param>
    /// <exception cref="FormatException">No encoding has that name.</exception>
    /// <exception cref="FileNotFoundException">Its file is in none of them and cannot be downloaded; one sentence with file, hash, places and address.</exception>
    public static Vocabulary Named(string name, string? tokenizerFile, IReadOnlyList<string> places, EncodingDownload? download)
    {
        PublishedEncoding encoding = Find(name) ?? throw new FormatException($"name = {name}: there is no such encoding; known are {Names}");
        if (encoding.Package is { } package) return encoding.Parse(PackagedRanks.Read(package, name));
        string[] own = tokenizerFile is null ? [] : [Path.GetDirectoryName(Path.GetFullPath(tokenizerFile))!];
        if (encoding.Search(own, places) is var (_, content)) return encoding.Parse(content);
        string? failure = null;
        if (download is not null)
        {
            // Apart from the caller's synchronization context, for which this call may be holding the only thread.
            try { return Read(Task.Run(() => download.GetAsync(name)).GetAwaiter().GetResult()); }
            catch (IOException e) { failure = e.Message; }
        }
        string[] searched = [.. own.Concat(places).Concat(download is null ? [] : [download.Folder]).Distinct()];
        throw new FileNotFoundException(encoding.Missing(tokenizerFile, searched, failure), encoding.FileName);
    }

    /// <summary>The encoding's file with its content; null where none of the folders (looked at without their subfolders) and places has it.</summary>
    public (string File, byte[] Content)? Search(IReadOnlyList<string> folders, IReadOnlyList<string> places)
    {
        foreach (string candidate in folders.SelectMany(folder => Files(folder, subfolders: false)).Concat(places.SelectMany(place => Files(place, subfolders: true))))
            if (TryRead(candidate) is { } content) return (candidate, content);
        return null;
    }

    public PublishedFile Describe() =>
        new(Name, FileName, Bytes, Sha256, Size > 0 ? Size : SpecialTokens.Values.Max() + 1, [.. SpecialTokens.OrderBy(special => special.Value).Select(special => special.Key)], Package is not null) { Hash = Hash };

    private string Missing(string? tokenizerFile, string[] searched, string? failure)
    {
        string needed = tokenizerFile is null ? $"The encoding {Name} needs" : $"The tokenizer {tokenizerFile} names the encoding {Name}, which needs";
        string where = searched.Length == 0 ? "" : $" and which is not in {string.Join(" or ", searched)}";
        string cure = searched.Length == 0 ? "give the file" : "put it into one of these folders";
        string published = failure is null ? $"It is published at {EncodingDownload.Published}{FileName}." : $"{failure}.";
        return $"{needed} the file {FileName}, whose SHA-256 is {Sha256}{where}; {cure}. {published}";
    }

    /// <summary>The vocabulary with the chat markers that it lacks after its last id.</summary>
    public static Vocabulary WithChatMarkers(Vocabulary vocabulary)
    {
        if (vocabulary.Encoding is null && vocabulary.Source is { } source) return TokenizerJson.WithSpecials(source, ChatMarkers, vocabulary.Tokens.Length);
        string[] missing = [.. ChatMarkers.Where(marker => !vocabulary.SpecialTokens.ContainsKey(marker))];
        Dictionary<string, int> specials = new(vocabulary.SpecialTokens);
        for (int i = 0; i < missing.Length; i++) specials.Add(missing[i], vocabulary.Tokens.Length + i);
        return vocabulary with { SpecialTokens = specials, Tokens = [.. vocabulary.Tokens, .. missing.Select(Encoding.UTF8.GetBytes)] };
    }

    private static Dictionary<string, int> Specials(params ReadOnlySpan<(string Text, int Id)> tokens)
    {
        Dictionary<string, int> specials = [];
        foreach ((string text, int id) in tokens) specials.Add(text, id);
        return specials;
    }

    private static IEnumerable<string> Files(string place, bool subfolders)
    {
        if (File.Exists(place)) return [place];
        if (!Directory.Exists(place)) return [];
        return Directory.EnumerateFiles(place, "*", new EnumerationOptions { IgnoreInaccessible = true, RecurseSubdirectories = subfolders, MaxRecursionDepth = 1 }).Order(StringComparer.Ordinal);
    }

    public bool Is(byte[] content) => content.Length == Bytes && Convert.ToHexStringLower(SHA256.HashData(content)) == Sha256;

    /// <summary>The file's content if it is this encoding; other files are told by their length, so that hardly any is read.</summary>
    public byte[]? TryRead(string file)
    {
        try
        {
            if (new FileInfo(file).Length != Bytes) return null;
            byte[] content = File.ReadAllBytes(file);
            return Is(content) ? content : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException) { return null; }
    }

    /// <summary>Lines of a token in base64, a space and its rank, which is its id; in order of rank.</summary>
    private Vocabulary Parse(byte[] content)
    {
        int size = SpecialTokens.Values.Max() + 1;
        List<byte[]> tokens = new(size);
        int[] byteIds = new int[256];
        Span<byte> decoded = stackalloc byte[LongestToken];
        foreach (Range range in content.AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> line = content.AsSpan(range);
            if (line.IsEmpty) continue;
            int space = line.IndexOf((byte)' '), id = int.Parse(line[(space + 1)..], NumberStyles.None, CultureInfo.InvariantCulture);
            Base64.DecodeFromUtf8(line[..space], decoded, out _, out int length);
            while (tokens.Count < id) tokens.Add([]);
            tokens.Add(decoded[..length].ToArray());
            if (length == 1) byteIds[decoded[0]] = id;
        }
        while (tokens.Count < size) tokens.Add([]);
        foreach ((string text, int id) in SpecialTokens) tokens[id] = Encoding.UTF8.GetBytes(text);
        return new Vocabulary([.. tokens], SpecialTokens, [])
        {
            Rules = new TextRules { Pattern = Pattern, WholeWords = true, Ranked = true },
            EndOfTextId = SpecialTokens[Tokenizer.EndOfText],
            ByteIds = byteIds,
            Encoding = Name,
            Source = Encoding.UTF8.GetBytes($"{{\"name\": \"{Name}\"}}\n"),
        };
    }
}
