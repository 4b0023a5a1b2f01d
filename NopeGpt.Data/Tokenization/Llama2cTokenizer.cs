using System.Buffers.Binary;
using System.Text;
using System.Text.Json;

namespace NopeGpt.Data.Tokenization;

/// <summary>Reads llama2.c's tokenizer.bin: the length of the longest token, then for every token its score (float32), its length (int32) and its
/// bytes, to the end of the file; all little-endian. It becomes the tokenizer.json that gives the same ids as llama2.c's run.c: a space before the
/// text, characters or else bytes, and of all neighbours that together are a token those with the best score first.</summary>
internal static class Llama2cTokenizer
{
    private const int Unknown = 0, FirstByte = 3, FirstOther = FirstByte + 256;

    /// <summary>Tokens of SentencePiece have at most a few dozen bytes.</summary>
    private const int LongestToken = 1024;

    /// <summary>run.c merges nothing of this score or below.</summary>
    private const float LeastScore = -1e10f;

    private const string Cure = "copy the file again from its source";

    // run.c knows the first three by their ids only; their texts differ between exporters ("\n<s>\n").
    private static readonly string[] _specials = ["<unk>", "<s>", "</s>"];

    /// <summary>Spaces stay spaces: with SentencePiece's mark for them, text that has the mark itself would get other ids than in run.c.</summary>
    private const string Normalizer = """{"type": "Prepend", "prepend": " "}""";

    private const string PostProcessor = """
        {
          "type": "TemplateProcessing",
          "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
          "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
          "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
        }
        """;

    private const string Decoder = """{"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}""";

    /// <exception cref="InvalidDataException">The file is damaged or of another kind; one sentence with token, reason and cure.</exception>
    public static Vocabulary Read(string path)
    {
        try
        {
            (string[] texts, float[] scores) = Parse(File.ReadAllBytes(path));
            return TokenizerJson.Read(Write(texts, Merges(texts, scores)), path, [], null) with { IsExact = true };
        }
        catch (FormatException error)
        {
            throw new InvalidDataException($"The tokenizer {path} cannot be used as llama2.c's: {error.Message}; {Cure}.", error);
        }
    }

    private static (string[] Texts, float[] Scores) Parse(ReadOnlySpan<byte> content)
    {
        if (content.Length < sizeof(int)) throw new FormatException($"it has {content.Length} bytes and no header");
        int longest = BinaryPrimitives.ReadInt32LittleEndian(content);
        if (longest is < 1 or > LongestToken) throw new FormatException($"its longest token is said to have {longest} bytes, which is not between 1 and {LongestToken}");
        List<string> texts = [];
        List<float> scores = [];
        Dictionary<string, int> ids = [];
        UTF8Encoding strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);
        for (int at = sizeof(int); at < content.Length;)
        {
            int id = texts.Count;
            const int head = sizeof(float) + sizeof(int);
            if (content.Length - at < head) throw new FormatException($"it ends within the token {id}");
            float score = BinaryPrimitives.ReadSingleLittleEndian(content[at..]);
            int length = BinaryPrimitives.ReadInt32LittleEndian(content[(at + sizeof(float))..]);
            if (!float.IsFinite(score)) throw new FormatException($"the token {id} has the score {score}");
            if (length < 1 || length > longest) throw new FormatException($"the token {id} is said to have {length} bytes, where the longest has {longest}");
            if (content.Length - at - head < length) throw new FormatException($"it ends within the token {id}");
            string text;
            try { text = id < FirstByte ? _specials[id] : strict.GetString(content.Slice(at + head, length)); }
            catch (DecoderFallbackException) { throw new FormatException($"the token {id} is not valid UTF-8"); }
            if (id is >= FirstByte and < FirstOther && text != TokenizerJsonReader.ByteToken((byte)(id - FirstByte)))
                throw new FormatException($"the token {id} is '{text}' in place of {TokenizerJsonReader.ByteToken((byte)(id - FirstByte))}");
            if (!ids.TryAdd(text, id)) throw new FormatException($"the tokens {ids[text]} and {id} are both '{text}'");
            texts.Add(text);
            scores.Add(score);
            at += head + length;
        }
        if (texts.Count < FirstOther) throw new FormatException($"it has {texts.Count} tokens, and {FirstOther} are the special ones and the bytes alone");
        return ([.. texts], [.. scores]);
    }

    private static List<Merge> Merges(string[] texts, float[] scores)
    {
        byte[][] tokens = [.. texts.Select(Encoding.UTF8.GetBytes)];
        int[] ranks = new int[tokens.Length];
        Array.Fill(ranks, MergeDerivation.Never);
        int rank = -1;
        float before = float.PositiveInfinity;
        foreach (int id in Enumerable.Range(FirstOther, tokens.Length - FirstOther).Where(id => scores[id] > LeastScore).OrderByDescending(id => scores[id]))
        {
            if (scores[id] != before) rank++;
            (ranks[id], before) = (rank, scores[id]);
        }
        Dictionary<Rune, int> characters = [];
        for (int id = FirstOther; id < texts.Length; id++)
            if (texts[id].EnumerateRunes().Take(2).ToArray() is [var only]) characters.Add(only, id);
        List<Merge> merges = MergeDerivation.Derive(tokens, ranks, Symbols);
        for (int i = 1; i < merges.Count; i++)
        {
            (int one, int other) = (merges[i - 1].Result, merges[i].Result);
            if (ranks[one] == ranks[other]) throw new FormatException($"the tokens {one} ('{texts[one]}') and {other} ('{texts[other]}') have the same score {scores[one]}, so that the order of their merges is open");
        }
        return merges;

        // A character that is no token becomes bytes, and the tokens for bytes merge with nothing.
        int[]? Symbols(byte[] token)
        {
            List<int> symbols = [];
            foreach (Rune character in Encoding.UTF8.GetString(token).EnumerateRunes())
            {
                if (!characters.TryGetValue(character, out int id)) return null;
                symbols.Add(id);
            }
            return [.. symbols];
        }
    }

    private static byte[] Write(string[] texts, List<Merge> merges)
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, TokenizerJson.WriterOptions))
        {
            json.WriteStartObject();
            json.WriteString("version", "1.0");
            json.WriteNull("truncation");
            json.WriteNull("padding");
            TokenizerJson.WriteAddedTokens(json, _specials.Select((text, id) => KeyValuePair.Create(text, id)));
            json.WritePropertyName("normalizer");
            json.WriteRawValue(Normalizer);
            json.WriteNull("pre_tokenizer");
            json.WritePropertyName("post_processor");
            json.WriteRawValue(PostProcessor);
            json.WritePropertyName("decoder");
            json.WriteRawValue(Decoder);
            // As pairs, because tokens have spaces in them.
            TokenizerJson.WriteModel(json, texts, merges, merge => JsonSerializer.Serialize(json, (string[])[texts[merge.Left], texts[merge.Right]]), _specials[Unknown], byteFallback: true);
            json.WriteEndObject();
        }
        stream.WriteByte((byte)'\n');
        return stream.ToArray();
    }
}
