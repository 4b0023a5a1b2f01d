using System.Security.Cryptography;
using System.Text.Json;
using NopeGpt.Data.Tokenization;
using NopeGpt.Tests;

namespace NopeGpt.Data.Tests;

public sealed class PublishedEncodingTests : IDisposable
{
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
