using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Jobs.Inference;
using NopeGpt.Model;

namespace NopeGpt.Jobs.Training;

/// <summary>Texts that a model in training writes, so that a person can read how far it is.</summary>
internal static class Samples
{
    /// <summary>A text to continue as the beginning of a document: every document of a corpus begins after an end-of-text, or with BOS.</summary>
    public static PromptTokens Prompt(Tokenizer tokenizer, string text) => new([tokenizer.DocumentStartId, .. tokenizer.Encode(text)], tokenizer.StopIds);

    /// <summary>What the model writes after a prompt, up to end-of-text or of the reply. The same seed gives the same text.</summary>
    /// <param name="contextLength">Tokens that the model looks back on.</param>
    public static string Continue(Model.Decoder model, Tokenizer tokenizer, PromptTokens prompt, int maxTokens, int contextLength, ulong seed, CancellationToken cancel = default)
    {
        bool training = model.training;
        model.eval();
        try
        {
            SamplingOptions sampling = new() { Temperature = 0.7, TopK = 50, TopP = 0.95, RepeatPenalty = 0 };
            TextRequest request = new([.. prompt.Tokens], sampling, seed, maxTokens, prompt.StopIds);
            TextDecoder decoder = new(tokenizer, after: prompt.Tokens[^1]);
            StringBuilder text = new();
            GeneratedText written = BatchGeneration.Run(model, [request], contextLength, tokenizer.VocabularySize, cancel)[0];
            foreach (SampledToken token in written.Tokens) text.Append(decoder.Push(token.Id));
            return text.Append(decoder.Flush()).ToString();
        }
        finally { model.train(training); }
    }
}
