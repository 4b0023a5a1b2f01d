using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace NopeGpt.Data.Tokenization;

/// <summary>The file format of Hugging Face's tokenizers, as far as byte-level byte-pair encodings need it.</summary>
internal static class TokenizerJson
{
    public const string FileName = "tokenizer.json";
    private const string Cure = "train the tokenizer again or restore the file";

    public static void Write(Vocabulary vocabulary, string path)
    {
        using AsideFile aside = new(path);
        using (Utf8JsonWriter json = new(aside.Stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            json.WriteString("version", "1.0");
            json.WriteNull("truncation");
            json.WriteNull("padding");
            WriteAddedTokens(json, vocabulary);
            json.WriteNull("normalizer");
            WritePreTokenizer(json);
            json.WriteNull("post_processor");
            json.WriteStartObject("decoder");
            WriteByteLevel(json);
            json.WriteEndObject();
            WriteModel(json, vocabulary);
            json.WriteEndObject();
        }
        aside.Stream.WriteByte((byte)'\n');
        aside.Complete();
    }

    /// <exception cref="InvalidDataException">The file is damaged, or a tokenizer of another kind.</exception>
    public static Vocabulary Read(string path)
    {
        JsonDocument document;
        try { document = JsonDocument.Parse(File.ReadAllBytes(path)); }
        catch (JsonException error) { throw new InvalidDataException($"The tokenizer {path} is damaged: it is not whole JSON (line {error.LineNumber + 1}); {Cure}.", error); }
        using (document)
        {
            try { return Read(document.RootElement); }
            catch (Exception error) when (error is KeyNotFoundException or InvalidOperationException or FormatException)
            {
                string reason = error is FormatException ? error.Message : "an entry is missing or of the wrong type";
                throw new InvalidDataException($"The tokenizer {path} cannot be used: {reason}; {Cure}.", error);
            }
        }
    }

    private static void WriteAddedTokens(Utf8JsonWriter json, Vocabulary vocabulary)
    {
        json.WriteStartArray("added_tokens");
        foreach ((string text, int id) in vocabulary.SpecialTokens.OrderBy(special => special.Value))
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

    private static void WritePreTokenizer(Utf8JsonWriter json)
    {
        json.WriteStartObject("pre_tokenizer");
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
        WriteByteLevel(json);
        json.WriteEndObject();
        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static void WriteByteLevel(Utf8JsonWriter json)
    {
        json.WriteString("type", "ByteLevel");
        json.WriteBoolean("add_prefix_space", false);
        json.WriteBoolean("trim_offsets", true);
        json.WriteBoolean("use_regex", false);
    }

    private static void WriteModel(Utf8JsonWriter json, Vocabulary vocabulary)
    {
        string[] texts = Texts(vocabulary);
        json.WriteStartObject("model");
        json.WriteString("type", "BPE");
        json.WriteNull("dropout");
        json.WriteNull("unk_token");
        json.WriteNull("continuing_subword_prefix");
        json.WriteNull("end_of_word_suffix");
        json.WriteBoolean("fuse_unk", false);
        json.WriteBoolean("byte_fallback", false);
        json.WriteBoolean("ignore_merges", false);
        json.WriteStartObject("vocab");
        for (int id = 0; id < texts.Length; id++) json.WriteNumber(texts[id], id);
        json.WriteEndObject();
        // "left right", which old and new versions of the library read; the alphabet has no space.
        json.WriteStartArray("merges");
        foreach ((int left, int right) in vocabulary.Merges) json.WriteStringValue($"{texts[left]} {texts[right]}");
        json.WriteEndArray();
        json.WriteEndObject();
    }

    private static string[] Texts(Vocabulary vocabulary)
    {
        string[] texts = [.. vocabulary.Tokens.Select(token => ByteAlphabet.ToText(token))];
        foreach ((string text, int id) in vocabulary.SpecialTokens) texts[id] = text;
        return texts;
    }

    private static Vocabulary Read(JsonElement root)
    {
        JsonElement model = root.GetProperty("model");
        CheckKind(root, model);
        Dictionary<string, int> ids = [];
        foreach (JsonProperty token in model.GetProperty("vocab").EnumerateObject())
            if (!ids.TryAdd(token.Name, token.Value.GetInt32())) throw new FormatException($"the token '{token.Name}' stands twice in its vocabulary");
        Dictionary<string, int> specials = ReadSpecials(root, ids);
        byte[][] tokens = new byte[ids.Count][];
        foreach ((string text, int id) in ids)
        {
            if ((uint)id >= (uint)tokens.Length || tokens[id] is not null) throw new FormatException($"the ids of its {tokens.Length} tokens are not 0 to {tokens.Length - 1}, each once ('{text}' has {id})");
            tokens[id] = specials.ContainsKey(text) ? Encoding.UTF8.GetBytes(text)
                : ByteAlphabet.ToBytes(text) ?? throw new FormatException($"the token '{text}' is not written in the byte-level alphabet");
        }
        foreach (byte value in ByteAlphabet.Order)
            if (!ids.ContainsKey(ByteAlphabet.ToText([value]))) throw new FormatException($"the byte {value} is missing from its vocabulary");
        return new Vocabulary(tokens, specials, ReadMerges(model, ids));
    }

    /// <summary>A tokenizer that cuts words otherwise, or changes the text first, would give other ids than its maker meant.</summary>
    private static void CheckKind(JsonElement root, JsonElement model)
    {
        if (model.GetProperty("type").GetString() != "BPE") throw new FormatException($"its model is {model.GetProperty("type").GetString()}, and only BPE is supported");
        if (root.TryGetProperty("normalizer", out JsonElement normalizer) && normalizer.ValueKind != JsonValueKind.Null) throw new FormatException("it has a normalizer, which is not supported");
        foreach (string name in (string[])["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"])
            if (model.TryGetProperty(name, out JsonElement option) && option.ValueKind != JsonValueKind.Null) throw new FormatException($"its model sets '{name}', which is not supported");
        foreach (string name in (string[])["byte_fallback", "ignore_merges"])
            if (model.TryGetProperty(name, out JsonElement option) && option.ValueKind == JsonValueKind.True) throw new FormatException($"its model sets '{name}', which is not supported");
        JsonElement cutter = root.GetProperty("pre_tokenizer");
        bool ours = cutter.ValueKind == JsonValueKind.Object && cutter.GetProperty("type").GetString() == "Sequence"
            && cutter.GetProperty("pretokenizers") is { ValueKind: JsonValueKind.Array } parts && parts.GetArrayLength() == 2
            && parts[0].GetProperty("type").GetString() == "Split" && parts[0].GetProperty("pattern").TryGetProperty("Regex", out JsonElement regex) && regex.GetString() == WordSplitter.Pattern
            && parts[0].GetProperty("behavior").GetString() == "Isolated" && !parts[0].GetProperty("invert").GetBoolean()
            && parts[1].GetProperty("type").GetString() == "ByteLevel" && !parts[1].GetProperty("add_prefix_space").GetBoolean() && !parts[1].GetProperty("use_regex").GetBoolean();
        if (!ours) throw new FormatException("its pre-tokenizer is not the one of the tokenizers trained here, so its ids would come out wrong");
    }

    private static Dictionary<string, int> ReadSpecials(JsonElement root, Dictionary<string, int> ids)
    {
        Dictionary<string, int> specials = [];
        foreach (JsonElement token in root.GetProperty("added_tokens").EnumerateArray())
        {
            string text = token.GetProperty("content").GetString() ?? throw new FormatException("an added token has no content");
            int id = token.GetProperty("id").GetInt32();
            if (!ids.TryAdd(text, id) && ids[text] != id) throw new FormatException($"the special token '{text}' has the ids {id} and {ids[text]}");
            if (!specials.TryAdd(text, id)) throw new FormatException($"the special token '{text}' stands twice");
        }
        return specials.ContainsKey(Tokenizer.EndOfText) ? specials : throw new FormatException($"it has no special token {Tokenizer.EndOfText}");
    }

    /// <summary>Merges as "left right" or as ["left", "right"], the older and the newer way of the library.</summary>
    private static List<(int, int)> ReadMerges(JsonElement model, Dictionary<string, int> ids)
    {
        List<(int, int)> merges = [];
        HashSet<(int, int)> seen = [];
        foreach (JsonElement merge in model.GetProperty("merges").EnumerateArray())
        {
            string[] parts = merge.ValueKind == JsonValueKind.Array ? [.. merge.EnumerateArray().Select(part => part.GetString() ?? "")] : merge.GetString()!.Split(' ');
            if (parts.Length != 2 || !ids.TryGetValue(parts[0], out int left) || !ids.TryGetValue(parts[1], out int right) || !ids.ContainsKey(parts[0] + parts[1]))
                throw new FormatException($"merge {merges.Count + 1} ('{string.Join(' ', parts)}') is not of two tokens that make a third of its vocabulary");
            if (!seen.Add((left, right))) throw new FormatException($"merge {merges.Count + 1} ('{string.Join(' ', parts)}') stands twice");
            merges.Add((left, right));
        }
        return merges;
    }
}
