using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed class PublishedEncodingTests : IDisposable
{
    private static readonly string[] _parts =
    [
        "the", " once", "Lily", "'s", "'S", "'ll", "'LL", "'lL", "'RE", "'ve", "'d", "'D", "'x", "'", " '", "\u2019s", "don't", "I'M", " ", "  ", "   ", "\n",
        "\n\n", "\r\n", "\r", " \n", "\n ", "\t", "\t\t ", "\u00a0", "\u3000", "\u2028", "\u2029", "\u0085", "\u000b", "\u000c", "\u001c", "\u180e", "\u200b",
        "\u202f", "1", "12", "123", "12345", "\u0661\u0662\u0663", "\u2167", "\u00bd", "\u00b2", "\u2460", ".", "...", "!?", " \"", "\",", "<|endoftext|>",
        "--", "\u00e9", "e\u0301", "\u00df", "\u017f", "'\u017f", "\u212a", "\u0130", "\u65e5\u672c\u8a9e", "\u4e2d\u6587", "\u3002", "\ud55c\uad6d\uc5b4",
        "\u041f\u0440\u0438\u0432\u0435\u0442", "\u05e9\u05dc\u05d5\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947", "\ud83d\ude00",
        "\ud83d\udc69\u200d\ud83d\udc69\u200d\ud83d\udc67", "\ud83c\udff3\ufe0f\u200d\ud83c\udf08", "\ud835\udc9c\ud835\udcb7", "\ud835\udfd9\ud835\udfda",
        "\ud835\udfd8", "\ud800\udd07", "\ud840\udc00", "\ud869\ude96", "\ud83a\udd00\ud83a\udd22", "\ud801\udc00\ud801\udc28", "\ud804\udc00", "\ud834\udd65",
        "\ud83a\udcd0", "\ud808\udc00", "\ud800\udd40", "\ud83c\udd00", "\udb40\udd00", "\udbff\udfff", "\u01c5", "\u02b0", "camelCase", "HTMLParser",
        "A\u0301B", "//", "/\n", "\u2581", "\0", "\u0001", "\u007f", "\ufeff", "\ufffd", "\uffff", "aaaaaaaa", "abababab", "\u0120", "\u00aa", "\u0640",
        "\u0483", "\u20dd",
    ];

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [NeedsTheory(Needs.SharedData)]
    [InlineData("r50k_base", 50257)]
    [InlineData("p50k_base", 50281)]
    [InlineData("cl100k_base", 100277)]
    [InlineData("o200k_base", 200019)]
    public void Ids_are_those_of_the_golden_encodings(string name, int size)
    {
        Tokenizer tokenizer = Tokenizer.Load(name, [Needs.Data("tokenizers")]);
        Assert.Equal(size, tokenizer.VocabularySize);
        int count = 0;
        foreach (string line in File.ReadLines(Needs.Data("tokenizers/golden-encodings.jsonl")))
        {
            using JsonDocument golden = JsonDocument.Parse(line);
            string text = golden.RootElement.GetProperty("text").GetString()!;
            int[] ids = [.. golden.RootElement.GetProperty(name.Replace("_base", "", StringComparison.Ordinal)).EnumerateArray().Select(id => id.GetInt32())];
            Assert.Equal(ids, tokenizer.Encode(text));
            Assert.Equal(text, tokenizer.Decode(ids));
            count++;
        }
        Assert.Equal(138, count);
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("r50k_base", "7df772e27107d67848971e0aaf8f58c7db8d44d66f4ce0a77445c7baaca5d300")]
    [InlineData("cl100k_base", "78d941c3dffa422cbee825791dc29038ad4588f5a8cdf026a4e670cecc5a4141")]
    [InlineData("o200k_base", "7705ff7e085218a8bdcb12a68db48d73b4303dda83da854ab6a632c7814523db")]
    public void Every_character_is_to_the_patterns_what_it_is_to_tiktoken(string name, string sha256)
    {
        // npm's tiktoken 1.0.22, encode_ordinary: the ids of each string and -1. Of the long stretches of one kind, every 97th character.
        Tokenizer tokenizer = Tokenizer.Load(name, [Needs.Data("tokenizers")]);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        List<int> ids = [];
        for (int value = 0; value < 0x110000; value += value is < 0x3400 or (>= 0xa000 and < 0xac00) or (>= 0xd7a0 and < 0x20000) ? 1 : 97)
        {
            if (!Rune.TryCreate(value, out Rune rune)) continue;
            ids.Clear();
            tokenizer.Encode($"{rune}a{rune}1 {rune}B'{rune}", ids);
            ids.Add(-1);
            hash.AppendData(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(ids)));
        }
        Assert.Equal(sha256, Convert.ToHexStringLower(hash.GetHashAndReset()));
    }

    [NeedsTheory(Needs.SharedData)]
    [InlineData("r50k_base", "0290ed715cc3cde7a87e9efa85612579ccfd6ce92a2815fd409509e5e461ae63")]
    [InlineData("p50k_base", "2820a38a8122fb03b91108851fa9ab1eb2ba5430449a5a9305181b26db4bc7fb")]
    [InlineData("cl100k_base", "9d916d77337d753a897c671bed0f6c2e14b2a5049d06e4317d5b5d5a1073a5e3")]
    [InlineData("o200k_base", "b6444079940f5f14381f8692eb374d46df5a20053f858c414effaf0a7252323f")]
    public void Twenty_thousand_hard_strings_have_the_ids_of_tiktoken(string name, string sha256)
    {
        // The same program in JavaScript with npm's tiktoken 1.0.22 gave these: the ids of each string and -1.
        Tokenizer tokenizer = Tokenizer.Load(name, [Needs.Data("tokenizers")]);
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        List<int> ids = [];
        ulong state = 1;
        for (int i = 0; i < 20_000; i++)
        {
            string text = string.Concat(Enumerable.Range(0, 1 + Next(14)).Select(_ => _parts[Next(_parts.Length)]));
            ids.Clear();
            tokenizer.Encode(text, ids);
            Assert.Equal(text, tokenizer.Decode(ids));
            ids.Add(-1);
            hash.AppendData(MemoryMarshal.AsBytes(CollectionsMarshal.AsSpan(ids)));
        }
        Assert.Equal(sha256, Convert.ToHexStringLower(hash.GetHashAndReset()));

        int Next(int below)
        {
            state = unchecked((state * 6364136223846793005) + 1442695040888963407);
            return (int)((state >> 33) % (ulong)below);
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void A_named_encoding_is_found_by_its_content_beside_the_file_and_in_the_places_given()
    {
        Name("r50k_base");
        string[] where = [_folder["model/r50k_base.tiktoken"], _folder["places/any name"], _folder["places/inner/6d1cbeee"], _folder["elsewhere.bpe"]];
        string hash = Tokenizer.Load(RankFile("r50k_base")).Hash;
        foreach (string file in where)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(file)!);
            File.Copy(RankFile("r50k_base"), file);
            Assert.Equal(hash, Tokenizer.Load(_folder["model"], [_folder["places"], _folder["elsewhere.bpe"], _folder["no such place"]]).Hash);
            File.Delete(file);
        }
    }

    [Theory]
    [InlineData("cl100k_base", "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7", 15339, "Cl100kBase")]
    [InlineData("o200k_base", "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d", 24912, "O200kBase")]
    public void Two_encodings_come_with_the_program_as_they_are_published(string name, string sha256, int hello, string package)
    {
        byte[] content = PackagedRanks.Read($"Microsoft.ML.Tokenizers.Data.{package}", name);
        Assert.Equal(sha256, Convert.ToHexStringLower(SHA256.HashData(content)));
        File.WriteAllBytes(_folder["any.tiktoken"], content);
        string hash = Tokenizer.Load(_folder["any.tiktoken"]).Hash;
        Name(name);
        Tokenizer named = Tokenizer.Load(_folder["model"]);
        Assert.Equal((hash, hash), (named.Hash, Tokenizer.Load(name).Hash));
        Assert.Equal([hello], named.Encode("hello"));
    }

    [NeedsFact(Needs.SharedData)]
    public void A_name_is_an_encoding_or_a_folder_in_one_of_the_places()
    {
        Tokenizer ours = BytePairTrainer.Train(["words and words"], 260);
        ours.Save(_folder["tokenizers/mine"]);
        Assert.Equal(ours.Hash, Tokenizer.Load("mine", [_folder["cache"], _folder["tokenizers"]]).Hash);
        Assert.Equal(Tokenizer.Load(RankFile("r50k_base")).Hash, Tokenizer.Load("r50k_base", [Needs.Data("tokenizers")]).Hash);
        Assert.Contains("The encoding r50k_base needs the file r50k_base.tiktoken, whose SHA-256 is 306cd27f", Assert.Throws<FileNotFoundException>(() => Tokenizer.Load("r50k_base", [_folder["tokenizers"]])).Message, StringComparison.Ordinal);
        Assert.Contains("the name of one in the store, or one of the encodings r50k_base", Assert.Throws<FileNotFoundException>(() => Tokenizer.Load("r50", [_folder["tokenizers"]])).Message, StringComparison.Ordinal);
    }

    [NeedsFact(Needs.SharedData)]
    public void A_missing_or_changed_file_is_named_with_its_hash_and_where_it_belongs()
    {
        Name("r50k_base");
        byte[] changed = File.ReadAllBytes(RankFile("r50k_base"));
        changed[^2] ^= 1;
        File.WriteAllBytes(_folder["model/r50k_base.tiktoken"], changed);
        FileNotFoundException missing = Assert.Throws<FileNotFoundException>(() => Tokenizer.Load(_folder["model"], ["/a/place"]));
        foreach (string part in (string[])["r50k_base.tiktoken", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", _folder["model"], "/a/place", "put it into one of these folders"])
            Assert.Contains(part, missing.Message, StringComparison.Ordinal);
        string message = Assert.Throws<InvalidDataException>(() => Tokenizer.Load(_folder["model/r50k_base.tiktoken"])).Message;
        Assert.Contains("none of the published encodings r50k_base, p50k_base, cl100k_base, o200k_base", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"name": "gpt2"}""", "name = gpt2: there is no such encoding; known are r50k_base")]
    [InlineData("""{"name": 7}""", "name = 7: it must be a text")]
    [InlineData("""{"name": "r50k_base", "lowercase": true}""", "lowercase = true: this field is not known here")]
    public void A_name_that_is_not_understood_is_refused(string json, string reason)
    {
        File.WriteAllText(_folder["tokenizer.json"], json);
        Assert.Contains(reason, Assert.Throws<InvalidDataException>(() => Tokenizer.Load(_folder.Path)).Message, StringComparison.Ordinal);
    }

    [NeedsFact(Needs.SharedData)]
    public void A_model_of_four_tokens_more_has_the_chat_markers_and_padding_is_none()
    {
        Tokenizer tokenizer = Tokenizer.Load(RankFile("r50k_base"));
        Tokenizer chat = tokenizer.ForModel(50261, "model");
        Assert.Equal(50261, chat.VocabularySize);
        foreach ((string marker, int id) in new[] { (Tokenizer.EndOfText, 50256), ("<|im_start|>", 50257), ("<|im_end|>", 50258), ("<tool_call>", 50259), ("</tool_call>", 50260) })
        {
            Assert.Equal(id, chat.SpecialTokens[marker]);
            Assert.Equal(marker, chat.Decode([id]));
            Assert.DoesNotContain(id, chat.Encode($"a{marker}b"));
        }
        Assert.Equal(tokenizer.Encode("<|im_start|>user\nHi"), chat.Encode("<|im_start|>user\nHi"));
        foreach (int padded in (int[])[50257, 50304, 51200]) Assert.Same(tokenizer, tokenizer.ForModel(padded, "model"));
        foreach (int other in (int[])[50256, 512, 100277])
        {
            string message = Assert.Throws<InvalidDataException>(() => tokenizer.ForModel(other, "the folder")).Message;
            Assert.Contains($"the folder cannot be used: its tokenizer has 50257 tokens and its model {other}; take the two of one model", message, StringComparison.Ordinal);
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void Saved_it_is_the_file_of_the_reference()
    {
        Tokenizer.Load(RankFile("p50k_base")).Save(_folder["saved"]);
        Assert.Equal("{\"name\": \"p50k_base\"}\n", File.ReadAllText(_folder["saved/tokenizer.json"]));
        Tokenizer loaded = Tokenizer.Load(_folder["saved"], [RankFile("p50k_base")]);
        Assert.Equal((50281, 50256, 50256, null), (loaded.VocabularySize, loaded.EndOfTextId, loaded.DocumentStartId, loaded.BeginningId));
        Assert.Equal([50256], loaded.StopIds);
    }

    private void Name(string encoding)
    {
        Directory.CreateDirectory(_folder["model"]);
        File.WriteAllText(_folder["model/tokenizer.json"], $$"""{"name": "{{encoding}}"}""");
    }

    private static string RankFile(string name) => Needs.Data($"tokenizers/{name}.tiktoken");
}
