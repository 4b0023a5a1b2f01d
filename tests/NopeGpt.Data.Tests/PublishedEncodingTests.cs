using System.IO.Compression;
using System.Reflection;
using System.Text;
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
        Tokenizer tokenizer = Tokenizer.Load(RankFile(name));
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

    private string RankFile(string name)
    {
        if (name is "r50k_base" or "p50k_base") return Needs.Data($"tokenizers/{name}.tiktoken");
        string assembly = name == "cl100k_base" ? "Microsoft.ML.Tokenizers.Data.Cl100kBase" : "Microsoft.ML.Tokenizers.Data.O200kBase";
        Assembly data = Assembly.Load(assembly);
        using DeflateStream stream = new(data.GetManifestResourceStream(data.GetManifestResourceNames().Single(resource => resource.Contains(name, StringComparison.Ordinal)))!, CompressionMode.Decompress);
        using StreamReader lines = new(stream);
        // The package has one line with the count, then the tokens without their ranks, which are the numbers of the lines.
        StringBuilder file = new();
        Assert.StartsWith("Capacity", lines.ReadLine(), StringComparison.Ordinal);
        for (int rank = 0; lines.ReadLine() is { } token; rank++) file.Append(token).Append(' ').Append(rank).Append('\n');
        string path = _folder[$"{name}.tiktoken"];
        File.WriteAllText(path, file.ToString());
        return path;
    }
}
