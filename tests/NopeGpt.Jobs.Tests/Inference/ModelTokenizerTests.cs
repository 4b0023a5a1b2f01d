using System.Text.Json;
using System.Text.Json.Nodes;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Optimizers;
using NopeGpt.Model.Storage;
using NopeGpt.Tests;
using TorchSharp;

namespace NopeGpt.Jobs.Tests.Inference;

/// <summary>How a model's tokenizer is found, fitted and used.</summary>
public sealed class ModelTokenizerTests : IDisposable
{
    private const int Beginning = 1, End = 2, Wide = 10_000;
    private readonly TinyStore _tiny = new();

    public void Dispose() => _tiny.Dispose();

    [NeedsFact(Needs.SharedData)]
    public async Task A_named_encoding_is_taken_as_soon_as_its_file_lies_in_the_store()
    {
        string folder = Model(50_261, """{"name": "r50k_base"}""");
        using ModelStore models = new(new ModelCatalog(_tiny.Store), ComputeDevice.Cpu, new ModelLimits(3, long.MaxValue), _ => { });
        ModelException missing = await Assert.ThrowsAsync<ModelException>(() => models.AcquireAsync(folder));
        Assert.Equal(ModelFailure.FileMissing, missing.Failure);
        foreach (string part in (string[])["r50k_base.tiktoken", "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930", folder, _tiny.Store.CacheFolder, _tiny.Store.TokenizersFolder])
            Assert.Contains(part, missing.Message, StringComparison.Ordinal);
        File.Copy(Needs.Data("tokenizers/r50k_base.tiktoken"), Path.Combine(_tiny.Store.CacheFolder, "ranks"));
        using ModelLease lease = await models.AcquireAsync(folder);
        Assert.Equal((50_261, 50_258), (lease.Model.Tokenizer.VocabularySize, lease.Model.Tokenizer.SpecialTokens["<|im_end|>"]));
    }

    [NeedsFact(Needs.SharedData)]
    public void A_place_given_by_path_is_searched_and_prompts_are_those_of_the_reference()
    {
        string folder = Model(50_261, """{"name": "r50k_base"}""");
        using LoadedModel model = LoadedModel.Load(folder, ComputeDevice.Cpu, [Needs.Data("tokenizers")]);
        using JsonDocument parity = JsonDocument.Parse(File.ReadAllText(Needs.Data("parity/chatml.json")));
        foreach (JsonElement prompt in parity.RootElement.GetProperty("prompts").EnumerateArray())
        {
            ChatTurn[] turns = [.. prompt.GetProperty("messages").EnumerateArray().Select(m => new ChatTurn(m.GetProperty("role").GetString()!, m.GetProperty("content").GetString()!))];
            PromptTokens ours = PromptTokens.Create(model.Tokenizer, turns, Wide);
            Assert.Equal(prompt.GetProperty("prompt_tokens").EnumerateArray().Select(id => id.GetInt32()), ours.Tokens);
            Assert.Equal(parity.RootElement.GetProperty("stop_tokens").EnumerateArray().Select(id => id.GetInt32()), ours.StopIds);
        }
    }

    [NeedsFact(Needs.SharedData)]
    public void Prompts_begin_with_BOS_where_the_tokenizer_asks_for_it()
    {
        Tokenizer tokenizer = Tokenizer.Load(Needs.Data("weights/tok512.bin"));
        List<int> once = tokenizer.Encode("Once upon a time");
        PromptTokens prompt = PromptTokens.Continue(tokenizer, "Once upon a time", Wide);
        Assert.Equal([Beginning, .. once], prompt.Tokens);
        Assert.Equal([End, Beginning], prompt.StopIds);
        Assert.Equal([Beginning], PromptTokens.Continue(tokenizer, "", Wide).Tokens);
        Assert.Equal([Beginning, .. once.TakeLast(2)], PromptTokens.Continue(tokenizer, "Once upon a time", 3).Tokens);
        Assert.Equal(once.TakeLast(1), PromptTokens.Continue(tokenizer, "Once upon a time", 1).Tokens);
        PromptTokens chat = PromptTokens.Create(tokenizer, [new("user", "Once"), new("assistant", " there.", Ended: true), new("user", "Then")], Wide);
        Assert.Equal([Beginning, .. tokenizer.Encode("Once there."), End, Beginning, .. tokenizer.Encode("Then")], chat.Tokens);
        Assert.Equal([End, Beginning], chat.StopIds);
    }

    [NeedsFact(Needs.SharedData)]
    public async Task A_model_with_llama2cs_tokenizer_writes_whole_characters_and_no_space_at_the_beginning()
    {
        Tokenizer.Load(Needs.Data("weights/tok512.bin")).Save(_tiny["llama"]);
        string folder = Model(512, await File.ReadAllTextAsync(Path.Combine(_tiny["llama"], Tokenizer.FileName)));
        using LoadedModel model = LoadedModel.Load(folder, ComputeDevice.Cpu, []);
        using InferenceLane lane = new();
        foreach (string text in (string[])["", "Once"])
        {
            PromptTokens prompt = PromptTokens.Continue(model.Tokenizer, text, 48);
            List<int> ids = [.. prompt.Tokens];
            string shown = "";
            // The tiny model writes any token, bytes among them.
            await foreach (GenerationPiece piece in Generation.RunAsync(model, lane, new(prompt.Tokens, new SamplingOptions { Temperature = 1, TopK = 0, TopP = 1 }, 3, 60, prompt.StopIds, [], 48)))
            {
                if (piece.Token is { } token) ids.Add(token.Id);
                Assert.False(piece.Text.Length > 0 && (char.IsLowSurrogate(piece.Text[0]) || char.IsHighSurrogate(piece.Text[^1])));
                shown += piece.Text;
            }
            Assert.Equal(model.Tokenizer.Decode(ids), "<s>" + text + shown);
        }
    }

    [Fact]
    public void A_model_without_a_tokenizer_is_told_what_to_put_where()
    {
        string folder = _tiny.Folder(TinyStore.Run, 1);
        File.Delete(Path.Combine(folder, Tokenizer.FileName));
        string message = Assert.Throws<ModelException>(() => LoadedModel.Load(folder, ComputeDevice.Cpu, [])).Message;
        Assert.StartsWith($"{folder} has no tokenizer.json: put there the tokenizer.json that came with the model", message, StringComparison.Ordinal);
        Assert.Contains("tokenizer.bin", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(289, false)]
    [InlineData(290, true)]
    [InlineData(1313, true)]
    [InlineData(1314, false)]
    public void A_tokenizer_has_no_more_tokens_than_its_model_and_fewer_only_by_padding(int modelVocabulary, bool fits)
    {
        string folder = Model(modelVocabulary, File.ReadAllText(_tiny.TokenizerFile));
        if (fits)
        {
            using LoadedModel model = LoadedModel.Load(folder, ComputeDevice.Cpu, []);
            Assert.Equal(290, model.Tokenizer.VocabularySize);
            return;
        }
        ModelException e = Assert.Throws<ModelException>(() => LoadedModel.Load(folder, ComputeDevice.Cpu, []));
        Assert.Equal(ModelFailure.Unusable, e.Failure);
        Assert.Equal($"{folder} cannot be used: its tokenizer has 290 tokens and its model {modelVocabulary}; take the two of one model", e.Message);
    }

    /// <summary>A tiny untrained model of that vocabulary.</summary>
    private string Model(int vocabulary, string tokenizerJson)
    {
        File.WriteAllText(_tiny["given.json"], tokenizerJson);
        using DisposeScope scope = torch.NewDisposeScope();
        using Decoder model = new(new ModelConfig { VocabularySize = vocabulary, EmbeddingDimensions = 8, NumQHeads = 2, NumKvHeads = 1, NumDecoderLayers = 1 }, 1);
        using AdamW optimizer = new(model.Parameters(), new AdamWOptions());
        string folder = _tiny[$"model-{vocabulary}"];
        Checkpoint.Save(folder, model, optimizer, _tiny["given.json"], new JsonObject());
        return folder;
    }
}
