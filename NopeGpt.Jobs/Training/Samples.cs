using System.Text;
using NopeGpt.Data.Tokenization;
using NopeGpt.Model;
using TorchSharp;
using static TorchSharp.torch;

namespace NopeGpt.Jobs.Training;

/// <summary>Texts that a model in training writes, so that a person can read how far it is.</summary>
internal static class Samples
{
    /// <summary>The continuation of a prompt, up to end-of-text. The same seed gives the same text.</summary>
    /// <param name="contextLength">Tokens that the model looks back on.</param>
    public static string Continue(Model.Decoder model, Tokenizer tokenizer, string prompt, int maxTokens, int contextLength, ulong seed, CancellationToken cancel = default)
    {
        bool training = model.training;
        model.eval();
        try
        {
            using KeyValueCache cache = new(model.Config, 1, contextLength, model.Device);
            Sampler sampler = new(new SamplingOptions { Temperature = 0.7, TopK = 50, TopP = 0.95, RepeatPenalty = 0 }, seed);
                        StringBuilder text = new();
            List<int> written = [];
            // Every document of the corpus begins after an end-of-text, or with BOS.
            long[] next = [tokenizer.DocumentStartId, .. tokenizer.Encode(prompt).Select(id => (long)id)];
            TextDecoder decoder = new(tokenizer, after: (int)next[^1]);
            while (written.Count < maxTokens)
            {
                cancel.ThrowIfCancellationRequested();
                using DisposeScope scope = NewDisposeScope();
                Tensor logits_BV = model.Forward(tensor(next, [1, next.Length], device: model.Device), cache);
                int id = sampler.Next(logits_BV[0].narrow(0, 0, tokenizer.VocabularySize), written).Id;
                if (tokenizer.StopIds.Contains(id)) break;
                written.Add(id);
                text.Append(decoder.Push(id));
                next = [id];
            }
            return text.Append(decoder.Flush()).ToString();
        }
        finally { model.train(training); }
    }
}
