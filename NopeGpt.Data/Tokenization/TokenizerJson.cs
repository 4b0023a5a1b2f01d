using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace NopeGpt.Data.Tokenization;

/// <summary>The file format of Hugging Face's tokenizers, as far as byte-pair encodings need it.</summary>
internal static class TokenizerJson
{
    private const string Cure = "restore the file or take the tokenizer.json that belongs to the model; one that was trained here can be trained again";

    /// <summary>Indented, and letters of all scripts as themselves.</summary>
    public static JsonWriterOptions WriterOptions { get; } = new() { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    /// <summary>Writes a byte-level tokenizer of the pattern of those trained here or of GPT-2's.</summary>
    public static void Write(Vocabulary vocabulary, Stream stream)
    {
        using (Utf8JsonWriter json = new(stream, WriterOptions))
        {
            json.WriteStartObject();
            json.WriteString("version", "1.0");
            json.WriteNull("truncation");
            json.WriteNull("padding");
            WriteAddedTokens(json, vocabulary.SpecialTokens);
            json.WriteNull("normalizer");
            WritePreTokenizer(json, vocabulary.Rules.Pattern);
            json.WriteNull("post_processor");
            json.WriteStartObject("decoder");
            WriteByteLevel(json, ownPattern: false);
            json.WriteEndObject();
            string[] texts = Texts(vocabulary);
            // "left right", which old and new versions of the library read; the alphabet has no space.
            WriteModel(json, texts, vocabulary.Merges, merge => json.WriteStringValue($"{texts[merge.Left]} {texts[merge.Right]}"), unknown: null, byteFallback: false);
            json.WriteEndObject();
        }
        stream.WriteByte((byte)'\n');
    }

    /// <param name="places">Where the file of a named encoding may lie, besides the file's own folder.</param>
    /// <param name="download">Fetches it where it is nowhere; may be null.</param>
    /// <exception cref="InvalidDataException">The file is damaged, or asks for something that is not understood.</exception>
    /// <exception cref="FileNotFoundException">The file of a named encoding is nowhere.</exception>
    public static Vocabulary Read(string path, IReadOnlyList<string> places, EncodingDownload? download) => Read(File.ReadAllBytes(path), path, places, download);

    public static Vocabulary Read(byte[] content, string path, IReadOnlyList<string> places, EncodingDownload? download)
    {
        JsonDocument document;
        try { document = JsonDocument.Parse(content); }
        catch (JsonException error) { throw new InvalidDataException($"The tokenizer {path} is damaged: it is not whole JSON (line {error.LineNumber + 1}); {Cure}.", error); }
        using (document)
        {
            try
            {
                JsonField root = new(document.RootElement, "");
                if (root.Find("name") is not { } name) return new TokenizerJsonReader(root).Read() with { Source = content };
                root.Only("name");
                return PublishedEncoding.Named(name.Text(), path, places, download) with { Source = content };
            }
            catch (Exception error) when (error is InvalidOperationException or FormatException)
            {
                string reason = error is FormatException ? error.Message : "a text in it is not valid Unicode";
                throw new InvalidDataException($"The tokenizer {path} cannot be used: {reason}; {Cure}.", error);
            }
        }
    }

    /// <summary>A tokenizer.json with those of these special tokens that it lacks, under the ids from one on.</summary>
    public static Vocabulary WithSpecials(byte[] content, IEnumerable<string> texts, int firstId)
    {
        JsonObject root = JsonNode.Parse(content)!.AsObject();
        if (root["added_tokens"] is not JsonArray added) root["added_tokens"] = added = [];
        HashSet<string> present = [.. added.Where(token => (bool?)token!["special"] == true).Select(token => (string)token!["content"]!)];
        foreach (string text in texts.Where(text => !present.Contains(text)))
        {
            added.Add(new JsonObject
            {
                ["id"] = firstId++,
                ["content"] = text,
                ["single_word"] = false,
                ["lstrip"] = false,
                ["rstrip"] = false,
                ["normalized"] = false,
                ["special"] = true,
            });
        }
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, WriterOptions)) root.WriteTo(json);
        return Read(stream.ToArray(), "with chat markers", [], download: null);
    }

    public static void WriteAddedTokens(Utf8JsonWriter json, IEnumerable<KeyValuePair<string, int>> specials)
    {
        json.WriteStartArray("added_tokens");
        foreach ((string text, int id) in specials.OrderBy(special => special.Value))
        {
            json.WriteStartObject();
            json.WriteNumber("id", id);
            json.WriteString("content", text);
            json.WriteBoolean("single_word", false);
            json.WriteBoolean("lstrip", false);
            json.WriteBoolean("rstrip", false);
            json.WriteBoolean("normalized", false);
            json.WriteBoolean("special", true);
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }

    private static void WritePreTokenizer(Utf8JsonWriter json, WordPattern pattern)
    {
        json.WriteStartObject("pre_tokenizer");
        if (pattern == WordPattern.Gpt2) WriteByteLevel(json, ownPattern: true);
        else
        {
            json.WriteString("type", "Sequence");
            json.WriteStartArray("pretokenizers");
            json.WriteStartObject();
            json.WriteString("type", "Split");
            json.WriteStartObject("pattern");
            json.WriteString("Regex", WordSplitter.Pattern);
            json.WriteEndObject();
            json.WriteString("behavior", "Isolated");
            json.WriteBoolean("invert", false);
            json.WriteEndObject();
            json.WriteStartObject();
            WriteByteLevel(json, ownPattern: false);
            json.WriteEndObject();
            json.WriteEndArray();
        }
        json.WriteEndObject();
    }

    /// <param name="ownPattern">It cuts by GPT-2's pattern itself.</param>
    private static void WriteByteLevel(Utf8JsonWriter json, bool ownPattern)
    {
        json.WriteString("type", "ByteLevel");
        json.WriteBoolean("add_prefix_space", false);
        json.WriteBoolean("trim_offsets", true);
        json.WriteBoolean("use_regex", ownPattern);
    }

    /// <param name="texts">Tokens by id.</param>
    /// <param name="writeMerge">Writes one merge as the value it is in the list.</param>
    public static void WriteModel(Utf8JsonWriter json, string[] texts, IReadOnlyList<Merge> merges, Action<Merge> writeMerge, string? unknown, bool byteFallback)
    {
        json.WriteStartObject("model");
        json.WriteString("type", "BPE");
        json.WriteNull("dropout");
        json.WriteString("unk_token", unknown);
        json.WriteNull("continuing_subword_prefix");
        json.WriteNull("end_of_word_suffix");
        json.WriteBoolean("fuse_unk", false);
        json.WriteBoolean("byte_fallback", byteFallback);
        json.WriteBoolean("ignore_merges", false);
        json.WriteStartObject("vocab");
        for (int id = 0; id < texts.Length; id++) json.WriteNumber(texts[id], id);
        json.WriteEndObject();
        json.WriteStartArray("merges");
        foreach (Merge merge in merges) writeMerge(merge);
        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static string[] Texts(Vocabulary vocabulary)
    {
        string[] texts = [.. vocabulary.Tokens.Select(token => ByteAlphabet.ToText(token))];
        foreach ((string text, int id) in vocabulary.SpecialTokens) texts[id] = text;
        return texts;
    }
}
