using NopeGpt.Data;
using NopeGpt.Data.Chat;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;
using NopeGpt.Model.Storage.Layouts;

namespace NopeGpt.Jobs;

// What can be wrong with a fine-tuning.
public static partial class RunConfigChecks
{
    private const string BaseField = "finetune.base_checkpoint_path", SetsField = "finetune.dataset_subsets";

    /// <summary>Settings of other sections that a fine-tuning reads: its data are conversations, and its model is the base's.</summary>
    private static bool AppliesToFinetuning(string path) => path == "data.num_eval_samples" || (path != "training.max_epochs" && path.Split('.')[0] is "finetune" or "optimizer" or "training");

    private static void Finetuning(RunConfig config, List<Problem> problems)
    {
        FinetuneConfig finetune = config.Finetune;
        if (finetune.BaseCheckpointPath.Length == 0) problems.Add(new Problem(BaseField, "", "name the model to begin from: a run's id, a checkpoint folder or that of an imported model"));
        if (finetune.Datasets.Count == 0) problems.Add(new Problem(SetsField, "", "name one or more chat data sets of the store, or their token files"));
        foreach (string twice in finetune.Datasets.GroupBy(d => d, StringComparer.Ordinal).Where(g => g.Count() > 1).Select(g => g.Key))
            problems.Add(new Problem(SetsField, Short(twice), "is there more than once: name each once, and use finetune.num_epochs to train on all more often"));
        if (finetune.Method == FinetuneMethod.Full) FullAlone(finetune, problems);
        Devices(config, problems);
        // Where the conversations make the length it is looked at with them.
        if (config.Training.MaxSteps > 0) Length(config, config.Training.MaxSteps, problems);
        long tokens = (long)config.Training.BatchSize * finetune.MaxTokensPerSample;
        if (tokens > 1 << 24)
            problems.Add(new Problem("training.batch_size", Text(config.Training.BatchSize), $"makes up to {tokens} tokens in one micro-batch with finetune.max_tokens_per_sample = {finetune.MaxTokensPerSample}: at most {1 << 24}; use training.gradient_accumulation_steps for larger steps"));
        Texts("training.sample_prompts", config.Training.SamplePrompts, problems);
    }

    /// <summary>What only an adapter has says something else than training all weights.</summary>
    private static void FullAlone(FinetuneConfig finetune, List<Problem> problems)
    {
        FinetuneConfig usual = new();
        (string Name, object Value, object Usual)[] options =
        [
            ("lora_rank", finetune.LoraRank, usual.LoraRank), ("lora_alpha", finetune.LoraAlpha, usual.LoraAlpha), ("lora_dropout", finetune.LoraDropout, usual.LoraDropout),
            ("freeze_token_embeddings", finetune.FreezeTokenEmbeddings, usual.FreezeTokenEmbeddings),
        ];
        foreach ((string name, object value, object own) in options.Where(o => !o.Value.Equals(o.Usual)))
            problems.Add(new Problem("finetune." + name, Commands.RunOptions.Words(value), $"is for an adapter, and finetune.method full trains all weights without one: leave it at {Commands.RunOptions.Words(own)}, or use finetune.method lora"));
    }

    private static void FinetuningFits(RunConfig config, Store store, List<Problem> problems)
    {
        Tokenizer? learned = SetsFit(config, store, problems);
        if (config.Finetune.BaseCheckpointPath.Length > 0) BaseFits(config, learned, store, problems);
    }

    /// <returns>The tokenizer of the conversations; null where something is wrong with them.</returns>
    private static Tokenizer? SetsFit(RunConfig config, Store store, List<Problem> problems)
    {
        List<ChatFile> files = [];
        try
        {
            int before = problems.Count;
            // All are looked at, whatever is wrong with the first.
            Tokenizer? tokenizer = config.Finetune.Datasets.Select(name => SetFits(name, store, files, problems)).ToArray().FirstOrDefault();
            if (problems.Count > before || tokenizer is null) return null;
            foreach (ChatFile other in files.Where(f => f.Tokens.TokenizerHash != files[0].Tokens.TokenizerHash))
                problems.Add(new Problem(SetsField, Short(other.Path), $"was made with another tokenizer than {files[0].Path}: prepare both with the same one"));
            if (problems.Count == before && !problems.Any(p => p.Field is "training.batch_size" or "data.num_eval_samples" || p.Field.StartsWith("finetune.max", StringComparison.Ordinal)))
                ConversationsAreLeft(config, files, tokenizer, problems);
            return tokenizer;
        }
        finally
        {
            foreach (ChatFile file in files) file.Dispose();
        }
    }

    private static Tokenizer? SetFits(string name, Store store, List<ChatFile> files, List<Problem> problems)
    {
        try
        {
            string path = store.ResolveTokenFile(name), beside = Store.TokenizerBeside(path);
            if (!File.Exists(path))
            {
                string known = string.Join(", ", DatasetNames(store).Where(n => File.Exists(Path.ChangeExtension(store.DatasetTokens(n), ".messages"))));
                problems.Add(new Problem(SetsField, Short(name), $"there is no such data set; {(known.Length == 0 ? "prepare one first, with prepare.kind chat" : $"the store has {known}")}"));
                return null;
            }
            if (!File.Exists(Path.ChangeExtension(path, ".messages")))
            {
                problems.Add(new Problem(SetsField, Short(name), "holds documents, not conversations: prepare it with prepare.kind chat, or pretrain on it"));
                return null;
            }
            ChatFile file = ChatFile.Open(path);
            files.Add(file);
            if (!File.Exists(beside))
            {
                problems.Add(new Problem(SetsField, Short(name), $"has no tokenizer.json beside it ({beside}): prepare the data set again"));
                return null;
            }
            return file.Tokens.CheckTokenizer(Tokenizer.Load(beside, store.TokenizerPlaces), beside);
        }
        catch (Exception e) when (e is IOException or InvalidDataException or UnauthorizedAccessException) { problems.Add(new Problem(SetsField, Short(name), e.Message)); }
        catch (Exception e) when (e is ArgumentException or NotSupportedException) { problems.Add(new Problem(SetsField, Short(name), "cannot be a path: name a chat data set of the store or the path of its token file")); }
        return null;
    }

    private static void ConversationsAreLeft(RunConfig config, List<ChatFile> files, Tokenizer tokenizer, List<Problem> problems)
    {
        if (ChatFormat.Find(tokenizer) is not { } format)
        {
            problems.Add(new Problem(SetsField, Short(string.Join(", ", config.Finetune.Datasets)), "was made with a tokenizer without chat markers: prepare the conversations again"));
            return;
        }
        ChatBatchOptions options = new() { BatchSize = config.Training.BatchSize, Sample = config.Finetune.Samples(), Packing = config.Finetune.Packing, Seed = config.Seed };
        try { _ = Rows(options); }
        catch (ArgumentException e)
        {
            problems.Add(new Problem(SetsField, Short(string.Join(", ", config.Finetune.Datasets)), $"leaves nothing to learn from. {Sentence(e)}"));
            return;
        }
        try
        {
            long rows = Rows(options with { HoldoutSamples = config.Data.NumEvalSamples });
            if (config.Training.MaxSteps == 0) Length(config, RunLength.Scheduled(config, rows), problems);
        }
        catch (ArgumentException e) { problems.Add(new Problem("data.num_eval_samples", Text(config.Data.NumEvalSamples), Sentence(e))); }

        long Rows(ChatBatchOptions chosen) => new ChatBatchSource(files, format.PaddingId, chosen).TrainingRows;

        static string Sentence(ArgumentException e) => e.Message.Split(" (Parameter")[0];
    }

    /// <param name="learned">The tokenizer of the conversations; null where it is not known.</param>
    private static void BaseFits(RunConfig config, Tokenizer? learned, Store store, List<Problem> problems)
    {
        string named = config.Finetune.BaseCheckpointPath;
        try
        {
            string folder = BaseCheckpoint.Find(named, store, warn: null);
            if (CheckpointModel.IsAdapter(folder))
            {
                problems.Add(new Problem(BaseField, Short(named), $"is the checkpoint of an adapter, and not a whole model: merge the two first (nopegpt merge {CheckpointModel.Weights(folder)} {folder} --out DIR) and name that folder"));
                return;
            }
            ModelConfig model = HubLayout.Recognise(folder).Config;
            BaseWillFit(config, model, problems);
            if (learned is not null && TokenizerProblem(folder, model, learned, store) is { } reason) problems.Add(new Problem(BaseField, Short(named), reason));
        }
        catch (UserException e) { problems.Add(new Problem(BaseField, Short(named), e.Message)); }
        catch (Exception e) when (e is IOException or InvalidDataException or ArgumentException or NotSupportedException or UnauthorizedAccessException) { problems.Add(new Problem(BaseField, Short(named), e.Message)); }
    }

    /// <summary>Why the base cannot learn what this tokenizer made; null where it can: its own is the same, or the same without the chat markers.</summary>
    private static string? TokenizerProblem(string folder, ModelConfig model, Tokenizer learned, Store store)
    {
        if (ModelTokenizer.Beside(folder, model.VocabularySize) is not { } file) return $"has no tokenizer beside it: {Tokenizer.MissingCure}";
        Tokenizer own = Tokenizer.Load(file, store.TokenizerPlaces).ForModel(model.VocabularySize, folder);
        if (own.Hash == learned.Hash || own.WithChatMarkers().Hash == learned.Hash) return null;
        return $"has another tokenizer ({own.VocabularySize} tokens) than the conversations ({learned.VocabularySize}): prepare them with the base's (prepare.tokenizer = {file}), or choose another base";
    }
}
